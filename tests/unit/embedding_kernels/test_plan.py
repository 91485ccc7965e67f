"""plan.json: strictly read, and applied by `optimize`."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.served_package import Choice, Plan, ek, planning
from tests.unit.embedding_kernels import plans
from tests.unit.embedding_kernels.test_optimize import INDICES, OFFSETS, Model

BAGS = plans.shape(20, 4), plans.shape(10, 6, "mean"), plans.shape(5, 3, "max")
USER, ONE = plans.shape(20, 4), plans.shape(8, 2)
OWN, HALF = Choice("own", "unchanged"), Choice("fused", "float16")


def whole_plan(bags: Choice | None = None, one: Choice | None = None) -> Plan:
    return plans.plan(
        plans.group("bags", *BAGS, choice=bags),
        plans.group("named", USER),
        plans.group("one", ONE, choice=one),
    )


@pytest.fixture
def on_the_gpu_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests' tables lie on the CPU, which they take for the GPU of the plan."""
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = plans.plan(plans.group("bags", *BAGS, choice=HALF, others=(OWN, Choice("fused", "unchanged"))))
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert str(made) == "bags (ModuleList): fused, float16 rows, 1.0 µs (0.9 to 1.1)"


def raw() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(whole_plan().to_json())
    return found


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("groups.0.choice.kernel", "fast", 'groups[0].choice.kernel: is "fast", and should be "fused" or'),
        ("groups.0.choice.row_type", 3, "groups[0].choice.row_type: is 3, and should be "),
        ("groups.0.tables", [], "groups[0].tables: is empty"),
        ("groups.0.tables", {}, "groups[0].tables: is an object, and should be a list"),
        ("groups.1.tables.0.rows", -1, "groups[1].tables[0].rows: is -1, and should be a count"),
        ("groups.1.tables.0.rows", True, "groups[1].tables[0].rows: is true, and should be a whole number"),
        ("groups.2.candidates.0.eager_us.low", 5, "eager_us.median: lies outside low and high"),
        (
            "groups.2.candidates.0.eager_us",
            None,
            "groups[2].choice: is none of the candidates that have times",
        ),
        (
            "groups.2.choice",
            {"kernel": "own", "row_type": "float16", "few_rows": None, "many_bags": None},
            'choice.row_type: is "unchanged" where',
        ),
        (
            "groups.2.not_told_apart",
            [{"kernel": "own", "row_type": "unchanged", "few_rows": None, "many_bags": None}],
            "groups[2].not_told_apart: names what is no candidate",
        ),
        ("protocol.decided_by", "graph", "groups[0].choice: has no time by which it was decided (graph)"),
        ("groups.0.lookups", 10**400, "groups[0].lookups: is 1000"),
        ("schema_version", 1.0, "schema_version: is 1.0, and should be 1"),
        ("groups.0.lookups", float("nan"), "groups[0].lookups: is NaN, and should be a finite number"),
        ("gpu.name", None, "gpu.name: is null, and should be a text"),
        ("groups.2.choice.few_rows", 2**31, "groups[2].choice.few_rows: is a count below 2^31, not 2147"),
        (
            "groups.2.choice.crowded_clocks",
            2**24,
            "choice.crowded_clocks: is a count below 2^24, not 16777216",
        ),
        ("groups.2.choice.crowded_clocks", -1, "choice.crowded_clocks: is -1, and should be a count"),
        ("groups.2.choice.crowded_clocks", 450.0, "choice.crowded_clocks: is 450.0, and should be a whole"),
        ("groups.2.choice.crowded", 450, 'groups[2].choice."crowded": is no field of a plan; leave it out'),
        (
            "groups.2.choice",
            {"kernel": "own", "row_type": "unchanged", "crowded_clocks": 450},
            'choice.few_rows, many_bags, crowded_clocks: are of "fused" alone',
        ),
        (
            "groups.2.choice",
            {"kernel": "vectorized", "row_type": "unchanged", "few_rows": 3, "many_bags": None},
            'few_rows, many_bags, crowded_clocks: are of "fused" alone',
        ),
        ("gpu", "H100", 'gpu: is "H100", and should be an object'),
        ("protocol.colour", "red", 'protocol."colour": is no field of a plan; leave it out'),
        ("schema_version", 2, "has schema_version 2, and this embedding_kernels reads up to 1; update it"),
        ("schema_version", 0, "schema_version: is 0, and should be 1"),
    ],
)
def test_a_wrong_plan_is_one_sentence(tmp_path: Path, where: str, value: Any, words: str) -> None:
    found = raw()
    *steps, last = where.split(".")
    at: Any = found
    for step in steps:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ek.PlanError) as told:
        ek.optimize(Model(), plan=path)
    assert str(told.value).startswith(f"{path}: ")
    assert words in str(told.value)
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)


def test_a_plan_of_before_there_was_a_limit_says_what_is_usual(tmp_path: Path) -> None:
    whole, found = whole_plan(one=HALF), json.loads(whole_plan(one=HALF).to_json())
    for group in found["groups"]:
        for choice in (group["choice"], *(each["choice"] for each in group["candidates"])):
            assert choice.pop("crowded_clocks", 0) is None
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    assert Plan.load(path) == whole


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON: it is no text"),
        (b'{"a": 1, "a": 2}', "a key is there twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "the whole: is a list, and should be an object"),
        (b"{}", "schema_version: is missing"),
    ],
)
def test_what_is_no_plan_at_all(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text)
    with pytest.raises(ek.PlanError, match=words):
        Plan.load(path)
    with pytest.raises(ek.PlanError, match="No such file"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(ek.PlanError, match="is no file"):
        Plan.load(tmp_path)


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_a_plan_is_applied() -> None:
    model: Any = Model().eval()
    before, one = model(INDICES, OFFSETS), model.one
    ek.optimize(model, plan=whole_plan(bags=HALF, one=OWN), strict=True)
    assert model.one is one
    assert model.bags.weight(0).dtype == torch.float16
    assert model.bags[0](INDICES, OFFSETS).dtype == torch.float32
    torch.testing.assert_close(model(INDICES, OFFSETS), before, rtol=1e-2, atol=1e-2)
    assert [str(swap) for swap in ek.report(model)] == [
        "bags (ModuleList): 3 tables swapped as the plan says, fused, float16 rows",
        "named (ModuleDict): 1 table swapped as the plan says, fused",
        "one (EmbeddingBag): left as it is, since its own lookup is the fastest by the plan",
    ]


@pytest.mark.usefixtures("on_the_gpu_tuned")
@pytest.mark.parametrize("row_type", ["float16", "bfloat16", "int8", "int4"])
def test_rows_are_converted_and_outputs_keep_their_type(row_type: Any) -> None:
    bags = nn.ModuleList(nn.EmbeddingBag(30, 8, mode="mean") for _ in range(2))
    bags.append(bags[0])
    wanted = [bag(INDICES, OFFSETS) for bag in bags]
    tables = plans.shape(30, 8, "mean", count=3)
    planned = plans.plan(plans.group("", tables, choice=Choice("fused", row_type)))
    model = ek.optimize(bags, plan=planned, strict=True)
    assert model._shapes[0].row_type == row_type
    assert model._places[0] == model._places[2]
    near = {"float16": 1e-2, "bfloat16": 5e-2, "int8": 5e-2, "int4": 0.5}[row_type]
    for table, right in zip(model, wanted, strict=True):
        assert table(INDICES, OFFSETS).dtype == torch.float32
        torch.testing.assert_close(table(INDICES, OFFSETS), right, rtol=near, atol=near)


def test_another_gpu_is_refused_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = Model()
    one = model.one
    with pytest.raises(ek.PlanError, match="it was tuned on NVIDIA TEST, and the tables are on the cpu"):
        ek.optimize(model, plan=whole_plan(one=OWN), strict=True)
    assert model.one is one
    with caplog.at_level(logging.WARNING, "embedding_kernels"):
        ek.optimize(model, plan=whole_plan(one=OWN))
    (line,) = caplog.messages
    assert line.startswith("Served as without a plan, since it was tuned on NVIDIA TEST")
    assert isinstance(model.one, ek.EmbeddingTables)


def test_gpus_are_told_apart_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plans.GPU
    monkeypatch.setattr(planning, "gpu_of", lambda device: found)
    assert whole_plan().differences(torch.device("cuda")) == ""
    found = planning.Gpu("NVIDIA OTHER", "9.0", "580.1")
    assert whole_plan().differences(torch.device("cuda", 1)).endswith("and this is NVIDIA OTHER")


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_other_tables_are_refused_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    other = plans.plan(
        plans.group("bags", plans.shape(20, 4)),
        plans.group("named", plans.shape(20, 5)),
        plans.group("one", ONE, choice=OWN),
    )
    model: Any = Model()
    one = model.one
    with pytest.raises(ek.PlanError) as told:
        ek.optimize(model, plan=other, strict=True)
    assert "bags has 1 table of 20 rows x 4 float32 (sum), 1 table of 10 rows" in str(told.value)
    assert "and 1 table of 20 rows x 4 float32 (sum) were tuned there" in str(told.value)
    with caplog.at_level(logging.WARNING, "embedding_kernels"):
        ek.optimize(model, plan=other)
    assert model.one is one
    assert isinstance(model.bags, ek.EmbeddingTables)


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_groups_are_known_by_their_tables_and_the_path_among_equal_ones() -> None:
    first, second = (plans.group(path, ONE, choice=choice) for path, choice in (("a", OWN), ("b", HALF)))
    bags = {"b": nn.EmbeddingBag(8, 2, mode="sum"), "c": nn.EmbeddingBag(8, 2, mode="sum")}
    model = nn.Module()
    for name, bag in bags.items():
        model.add_module(name, copy.deepcopy(bag))
    ek.optimize(model, plan=plans.plan(first, second))
    assert [swap.choice for swap in ek.report(model)] == ["fused, float16 rows", "own"]


@pytest.mark.usefixtures("on_the_gpu_tuned")
@pytest.mark.parametrize("row_type", ["int8", "int4"])
def test_rows_that_cannot_be_quantised_are_left_or_refused_before_anything_is_changed(
    row_type: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = Model()
    with torch.no_grad():
        model.one.weight[3] = 1e30
    bags, one = model.bags, model.one
    planned = whole_plan(one=Choice("fused", row_type))
    words = (
        f"one cannot be served by fused, {row_type} rows: A row has values that are no numbers, or too large"
    )
    with pytest.raises(ek.PlanError, match=words):
        ek.optimize(model, plan=planned, strict=True)
    assert (model.bags, model.one) == (bags, one)
    with caplog.at_level(logging.WARNING, "embedding_kernels"):
        ek.optimize(model, plan=planned)
    assert words in caplog.text
    assert model.one.weight.dtype == torch.float32


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_a_model_on_no_device_is_made_for_the_rows_of_a_plan() -> None:
    source = ek.optimize(Model(), plan=whole_plan(one=Choice("fused", "int8")), strict=True)
    with torch.device("meta"):
        model = Model()
    ek.optimize(model, plan=whole_plan(one=Choice("fused", "int8")), strict=True)
    model.to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(INDICES, OFFSETS), source(INDICES, OFFSETS))


def test_a_choice_that_cannot_be_is_refused_before_anything_is_changed() -> None:
    model: Any = Model()
    bags, one = model.bags, model.one
    wrong = whole_plan(one=Choice("fused", "unchanged", crowded_clocks=2**24))
    with pytest.raises(ek.PlanError, match=r"plan: groups\[2\]\.choice\.crowded_clocks: is a count below"):
        ek.optimize(model, plan=wrong)
    assert (model.bags, model.one) == (bags, one)


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_a_group_that_the_model_lacks_is_told() -> None:
    whole = whole_plan()
    more = plans.plan(*whole.groups, plans.group("gone", plans.shape(3, 3)))
    with pytest.raises(ek.PlanError, match="the model has nothing like gone of the plan"):
        ek.optimize(Model(), plan=more, strict=True)
