"""Limits of "fused": moved by `tune`, told to the operator, and what is launched then."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness import designs
from tests.served import batch
from tests.served_package import Call, Choice, Limits, Plan, _operators, asked, ek, limits
from tests.unit.embedding_kernels import plans
from tests.unit.embedding_kernels.plans import WoundUp
from tests.unit.embedding_kernels.test_launches import fake_gpu, on_fake_gpu

__all__ = ["fake_gpu"]


def test_the_usual_ones_are_the_designs() -> None:
    wide, large, stream = (next(iter(special.when)) for special in designs.get("fused").special)
    assert (wide.rows_per_bag, wide.columns) == ((limits.FEW_ROWS, 0), (limits.WIDE, 0))
    assert (large.rows_per_bag, large.bags_per_sm) == ((limits.FEW_ROWS, 0), (limits.MANY_BAGS, 0))
    assert stream.rows_per_bag == (0, limits.FEW_ROWS)


def test_the_kernel_that_is_launched(fake_gpu: Path) -> None:
    code = """
def launched(bags, longest, *limits, dim=4):
    tables = alike(3, dim)
    module = ek.EmbeddingTables(tables)
    module.use_limits(*limits)
    indices, offsets = batch(tables, bags, longest)
    given = [fake.on_gpu(t, 0) for t in (module.storage, module.descriptors, indices, offsets)]
    found = _operators.lookup(*given, None, None, module._numbers.listed)
    assert_right(fake.on_cpu(found), expected(tables, indices, offsets), 8)
    return _operators.last_kernel().split("_float32")[0].removeprefix("fused_lookup_")

for limits in ((), (2,), (0, 0), (2, 4), (None, 0)): print(launched(5, 9, *limits))  # some 4 rows
for limits in ((), (99,), (0, 4), (None, 4), (32, 3)): print(launched(13, 90, *limits))  # some 45; 3 per SM
for limits in ((), (99,), (0, 4)): print(launched(13, 90, *limits, dim=132))
print(launched(5, 9, dim=132), launched(13, 90, dim=128))
"""
    found = on_fake_gpu(fake_gpu, code)
    assert found[:5] == ["stream", "tables", "large", "tables", "stream"]
    assert found[5:10] == ["large", "stream", "tables", "tables", "large"]
    assert found[10:] == ["wide", "stream", "wide", "stream large"], "of wide rows many bags are as few"


def test_the_operator_refuses_limits_that_are_none() -> None:
    module = ek.EmbeddingTables([torch.ones(3, 4)])
    given: Any
    for given, words in (
        ((-1,), r"few_rows: is a count below 2\^31, not -1\."),
        ((None, 2**31), r"many_bags: is a count below 2\^31, not 2147483648\."),
        ((None, 1.5), r"many_bags: is a count below 2\^31, not 1\.5\."),
        ((None, None, 2**24), r"crowded_clocks: is a count below 2\^24, not 16777216\."),
        ((None, None, True), r"crowded_clocks: is a count below 2\^24, not True\."),
    ):
        with pytest.raises(ValueError, match=words):
            module.use_limits(*given)
    assert module._numbers.listed[-3:] == [-1, -1, -1]
    asked = torch.tensor([0]), torch.tensor([0, 1])
    for wrong, words in (
        ([2**31, 0], "limits of rows and bags are counts below 2.31"),
        ([0, 2**24], "crowded clocks are a count below 2.24"),
        ([0, -2], "crowded clocks are a count below 2.24"),
        ([], "told by 3 numbers and 12 of each group; a model that another version exported or pickled"),
    ):
        numbers = _operators.numbers_of(module._numbers.listed[:-2] + wrong)
        for lookup, told in ((_operators.lookup, numbers.listed), (_operators.lookup_eager, numbers.tensor)):
            with pytest.raises(RuntimeError, match=words):
                lookup(module.storage, module.descriptors, *asked, None, None, told)


def test_the_operator_refuses_numbers_that_it_could_not_read() -> None:
    module = ek.EmbeddingTables([torch.ones(3, 4)])
    given = module.storage, module.descriptors, torch.tensor([0]), torch.tensor([0, 1]), None, None
    numbers = torch.tensor(module._numbers.listed)
    for wrong in (numbers.int(), numbers[None], numbers.repeat_interleave(2)[::2]):
        with pytest.raises(RuntimeError, match=r"a call's numbers are int64 \[n\] on the CPU"):
            _operators.lookup_eager(*given, wrong)


def test_what_another_version_pickled_is_refused() -> None:
    module = ek.EmbeddingTables([torch.ones(3, 4)])
    for before in (module._numbers.listed, None):
        module.__dict__["_numbers"] = before
        pickled = pickle.dumps(module)
        with pytest.raises(RuntimeError, match=r"what another version pickled has to be made anew by this\."):
            pickle.loads(pickled)


def asked_of(bags: int, length: int, dims: tuple[int, ...] = (8, 8)) -> tuple[Any, Any]:
    """Tables, and a call of bags that are all of one length."""
    tables = ek.EmbeddingTables([torch.ones(30, dim) for dim in dims])
    offsets = torch.arange(len(dims) * bags + 1) * length
    call = Call(None, (torch.zeros(int(offsets[-1]), dtype=torch.int64), offsets), {})
    return tables, [asked(tables, call)]


@pytest.mark.parametrize(
    ("bags", "length", "row_type", "found"),
    [
        (6, 4, "unchanged", [(4, 0), (4,)]),  # usually for the kernel for few rows
        (400, 50, "unchanged", [(51,), (None, 41)]),  # for that for many bags: 40 on each multiprocessor
        (20, 50, "unchanged", [(51,), (None, 2)]),  # for that for any call
        (400, 50, "float16", [(51,)]),
    ],
)
def test_limits_are_moved_as_little_as_need_be(
    bags: int, length: int, row_type: str, found: list[tuple[int | None, ...]]
) -> None:
    tables, calls = asked_of(bags, length)
    assert limits.moved(tables, calls, row_type, WoundUp()) == [Limits(*each) for each in found]


def test_of_wide_rows_it_is_all_one_how_many_bags_there_are() -> None:
    for bags in (20, 400):
        assert limits.moved(*asked_of(bags, 50, (132, 132)), "unchanged", WoundUp()) == [Limits(51)]
        assert limits.moved(*asked_of(bags, 4, (132, 132)), "unchanged", WoundUp()) == [Limits(4)]


@pytest.mark.parametrize(
    ("dim", "least"),
    [(32, 256), (36, 128), (64, 128), (68, 64), (128, 64)],
)
def test_when_memory_is_crowded_is_tried_where_the_kernel_for_many_bags_asks_it(dim: int, least: int) -> None:
    """What one list is of 256 rows at the most, of which so many are 32 KB in steps of 1 KB."""

    def tried(bags: int, length: int, row_type: str = "unchanged") -> list[Limits]:
        found = limits.moved(*asked_of(bags, length, (dim, dim)), row_type, WoundUp())
        return [each for each in found if each.crowded_clocks is not None]

    clocks = [0, 300, 450, 800, 2**24 - 1]
    assert tried(400, least) == [Limits(None, None, each) for each in clocks]
    assert tried(15, least) == [Limits(None, 1, each) for each in clocks], "where limits lead to it"
    assert tried(400, least - 1) == [], "its bags are too short"
    assert tried(400, least, "float16") == [], "of narrower rows there is no such kernel"


def test_of_bags_of_several_lengths_the_longest_counts() -> None:
    tables = ek.EmbeddingTables([torch.ones(30, 128)])
    offsets = torch.tensor([0, 2, 66, 66])
    call = asked(tables, Call(None, (torch.zeros(66, dtype=torch.int64), offsets), {}))
    found = limits.moved(tables, [call], "unchanged", WoundUp())
    assert [each.crowded_clocks for each in found if each.few_rows == 22][2:] == [0, 300, 450, 800, 2**24 - 1]


def test_where_one_kernel_takes_all_there_are_none() -> None:
    clock = WoundUp()
    assert limits.moved(*asked_of(400, 300, (8, 16)), "unchanged", clock) == []
    assert limits.moved(*asked_of(400, 300, (6, 6)), "unchanged", clock) == []
    assert limits.moved(*asked_of(0, 50), "unchanged", clock) == []
    tables, calls = asked_of(400, 300)
    weighted = [dataclasses.replace(call, weights=torch.ones(1)) for call in calls]
    assert limits.moved(tables, weighted, "unchanged", clock) == []


def test_a_plan_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bags = [nn.EmbeddingBag(30, 8, mode="sum") for _ in range(2)]
    batches = [batch([bag.weight for bag in bags], 20, 99, seed=seed) for seed in range(2)]
    made = ek.tune(copy.deepcopy(bags), batches, clock=WoundUp(fused=10, own=20, moved=5))
    choice = made.groups[0].choice
    assert choice.kernel == "fused"
    assert (choice.few_rows, choice.many_bags) != (None, None)
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    served = ek.optimize(copy.deepcopy(bags), plan=made, strict=True)
    assert served._limits == choice.limits
    assert served._numbers.listed[-3:] == [-1 if limit is None else limit for limit in choice.limits]
    assert str(Choice("fused", "float16", 48)) == "fused few_rows=48, float16 rows"


BAGS = [nn.EmbeddingBag(300, 128, mode="sum") for _ in range(2)]
LONG = [(torch.arange(2 * 30 * 70) % (300 - seed), torch.arange(2 * 30 + 1) * 70) for seed in range(2)]
"""Three bags on each multiprocessor, of 70 rows."""


def tuned_crowded(**us: Any) -> Plan:
    made: Plan = ek.tune(copy.deepcopy(BAGS), LONG, clock=WoundUp(fused=10, own=20, **us))
    return made


@pytest.fixture
def on_the_gpu_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests' tables lie on the CPU, which they take for the GPU of the plan."""
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")


@pytest.mark.usefixtures("on_the_gpu_tuned")
def test_when_memory_is_crowded_is_part_of_a_plan(tmp_path: Path) -> None:
    made = tuned_crowded(crowded450=5, crowded300=5.01)
    (group,) = made.groups
    chosen, same = (Choice("fused", "unchanged", crowded_clocks=each) for each in (450, 300))
    assert (group.choice, group.not_told_apart) == (chosen, (same,))
    assert str(made).startswith("the model itself (ModuleList): fused crowded_clocks=450, 5.0 µs (")
    assert str(made).endswith("; cannot be told apart: fused crowded_clocks=300")
    made.save(tmp_path / "plan.json")
    raw = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert raw["groups"][0]["choice"]["crowded_clocks"] == 450
    served = ek.optimize(copy.deepcopy(BAGS), plan=tmp_path / "plan.json", strict=True)
    assert served._limits == Limits(crowded_clocks=450)
    assert str(ek.report(served)[0]).endswith("swapped as the plan says, fused crowded_clocks=450")


def test_what_cannot_be_told_apart_stays_as_usual() -> None:
    (group,) = tuned_crowded(crowded450=9.95, crowded800=10.02).groups
    assert group.choice == Choice("fused", "unchanged")
    told = {each.crowded_clocks for each in group.not_told_apart}
    assert told == {450, 800}
    tried = [each.choice.crowded_clocks for each in group.candidates]
    assert [each for each in tried if each is not None] == [0, 300, 450, 800, 2**24 - 1]


def saved_and_loaded(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.usefixtures("on_the_gpu_tuned")
@pytest.mark.parametrize("looked_up", [False, True])
def test_limits_are_carried_along(looked_up: bool) -> None:
    module = ek.optimize(copy.deepcopy(BAGS), plan=tuned_crowded(crowded450=5), strict=True)
    wanted = module(*LONG[0]) if looked_up else None
    for copied in (
        copy.copy(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        saved_and_loaded(module),
        copy.deepcopy(module).to("meta"),
        copy.deepcopy(module).half(),
    ):
        assert copied._limits == Limits(crowded_clocks=450)
        assert copied._numbers.listed[-1] == 450
        assert [numbers.listed[-1] for numbers in copied._alone_numbers] == [450, 450]
        copied.use_kernel("vectorized")
        copied.use_kernel("fused")
        assert copied._numbers.listed[-1] == 450
    module.load_state_dict(module.state_dict())
    assert module._numbers.listed[-1] == 450
    if wanted is not None:
        assert torch.equal(pickle.loads(pickle.dumps(module))(*LONG[0]), wanted)
    module.use_limits()
    assert module._numbers.listed[-3:] == [-1, -1, -1]


def test_what_a_plan_says_reaches_the_kernel(fake_gpu: Path, tmp_path: Path) -> None:
    """At 1980 MHz, 2619 MHz and 5120 bits four multiprocessors' memory is crowded from 21 clocks on."""
    made = plans.plan(
        plans.group("a", plans.shape(30, 128), choice=Choice("fused", "unchanged", crowded_clocks=450)),
        plans.group("b", plans.shape(31, 128)),
        plans.group("c", plans.shape(32, 128), choice=Choice("vectorized", "unchanged")),
    )
    made.save(tmp_path / "plan.json")
    code = f"""
from embedding_kernels.plan import Plan
Plan.differences = lambda self, device: ""
model = torch.nn.ModuleDict()
for name, rows in zip("abc", (30, 31, 32)):
    model[name] = torch.nn.ModuleDict({{"bag": torch.nn.EmbeddingBag(rows, 128, mode="sum")}})
model = ek.optimize(model, plan={str(tmp_path / "plan.json")!r}, strict=True)
print(_operators.crowded_clocks(0))

def told(module):
    indices, offsets = batch([module.weight(0)], 13, 90)
    given = [fake.on_gpu(t, 0) for t in (module.storage, module.descriptors, indices, offsets)]
    try:
        found = _operators.lookup(*given, None, None, module._numbers.listed)
    except RuntimeError as error:
        return str(error)
    assert_right(fake.on_cpu(found), expected([module.weight(0)], indices, offsets), 30)
    return _operators.last_kernel().split("_float32")[0]

import copy, pickle
for clocks in (450, -1):
    driver.fake_expect_crowded_clocks(clocks)
    for each in model.values(): print(told(each))
driver.fake_expect_crowded_clocks(450)
print(told(pickle.loads(pickle.dumps(model["a"]))), told(copy.deepcopy(model["a"])))
driver.fake_expect_crowded_clocks(0)
model["a"].use_limits(crowded_clocks=0)
print(told(model["a"]))
"""
    wrong = (
        "CUDA error: when memory is crowded is told wrongly, as from {} clocks on "
        "(CUDA_ERROR_FAKE) when launching "
    )
    lines = on_fake_gpu(fake_gpu, code)
    large, rest = "fused_lookup_large", "vectorized_lookup_tables"
    assert lines[:2] == ["21", large]
    assert [line.partition(large)[0] for line in lines[2:3]] == [wrong.format(21)]
    assert [line.partition(rest)[0] for line in lines[3:4]] == [wrong.format(21)]
    assert lines[4].partition(large)[0] == wrong.format(450)
    assert lines[5:] == [large, rest, f"{large} {large}", large]
