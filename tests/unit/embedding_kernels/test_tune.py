"""`tune`: what it measures, by a clock that tests wind up, and what it makes of the times."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.served import batch
from tests.served_package import Call, Choice, Plan, asked, contenders, ek, import_torchrec, statistics
from tests.unit.embedding_kernels import plans
from tests.unit.embedding_kernels.plans import WoundUp
from tests.unit.embedding_kernels.test_optimize import INDICES, OFFSETS, Model

FUSED, OWN, HALF = Choice("fused", "unchanged"), Choice("own", "unchanged"), Choice("fused", "float16")
LIST = [nn.EmbeddingBag(30, 8, mode="sum"), nn.EmbeddingBag(20, 4, mode="mean")]
BATCHES = [batch([bag.weight for bag in LIST], 5, 6, seed=seed) for seed in range(3)]


def tuned(clock: WoundUp, model: Any = LIST, batches: Any = BATCHES, **options: Any) -> Plan:
    made: Plan = ek.tune(copy.deepcopy(model), batches, clock=clock, **options)
    return made


def test_the_fastest_is_taken_and_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WoundUp(fused=10, own=20, float16=7)
    made = tuned(clock, row_types=["float16", "float32"])
    (group,) = made.groups
    assert group.choice == HALF
    assert group.not_told_apart == ()
    assert list(map(str, [each.choice for each in group.candidates])) == [
        "fused",
        "vectorized",
        "fused, float16 rows",  # float32 they are already
        "vectorized, float16 rows",
        "own",
    ]
    fused, _, half, _, own = group.candidates
    assert fused.eager_us is not None
    assert fused.eager_us.median == pytest.approx(10, rel=0.01)
    assert fused.eager_us.low < 10 * 0.99 < 10 * 1.01 < fused.eager_us.high
    assert own.graph_us is not None
    assert own.graph_us.median == pytest.approx(10, rel=0.01)
    assert fused.change == own.change == 0
    assert 0 < half.change < 2**-10
    assert (made.gpu, made.protocol.batches, made.protocol.l2_bytes) == (plans.GPU, 3, 1000)
    assert made.torch_version == torch.__version__
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    model = ek.optimize(copy.deepcopy(LIST), plan=made, strict=True)
    assert model.weight(0).dtype == torch.float16


@pytest.mark.parametrize(
    ("us", "noise", "choice", "same"),
    [
        ({"fused": 10, "own": 10.1, "float16": 9.9}, 0.0, FUSED, {HALF, OWN}),  # within 1.6 %
        ({"fused": 10, "own": 10.1, "float16": 9}, 0.0, HALF, set()),
        ({"fused": 10, "own": 10.5, "float16": 9.2}, 0.3, FUSED, {HALF, OWN}),  # too much noise
        ({"fused": 12, "own": 10, "float16": 10.1}, 0.0, OWN, {HALF}),  # no numbers are changed for nothing
        ({"fused": 12, "own": 10, "float16": 10.4}, 0.0, OWN, set()),
    ],
)
def test_what_cannot_be_told_apart(
    us: dict[str, float], noise: float, choice: Choice, same: set[Choice]
) -> None:
    clock: Any = WoundUp
    made = tuned(clock(noise=noise, **us), row_types=["float16"], passes_each=1)
    (group,) = made.groups
    assert group.choice == choice
    assert set(group.not_told_apart) == same
    assert ("cannot be told apart" in str(made)) == bool(same)


def test_batches_take_turns_and_choices_are_shuffled() -> None:
    clock = WoundUp(fused=10, own=20)
    tuned(clock, passes_each=4, blocks=11)
    turns = [turn for _, turn in clock.taken]
    assert turns == [number % 3 for number in range(len(turns))]
    labels = [label for label, _ in clock.taken[::4]]
    assert len(labels) == 12 * 6  # a block to warm up; eager and as a graph
    blocks = [tuple(labels[first : first + 6]) for first in range(0, len(labels), 6)]
    assert all(sorted(block) == sorted(["fused", "own", "vectorized"] * 2) for block in blocks)
    assert len(set(blocks)) > 1
    again = WoundUp(fused=10, own=20)
    tuned(again, passes_each=4, blocks=11)
    assert again.taken == clock.taken
    other = WoundUp(fused=10, own=20)
    tuned(other, passes_each=4, blocks=11, seed=1)
    assert other.taken != clock.taken


def test_a_choice_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = contenders.passes

    def broken(group: Any, choice: Choice, tables: Any) -> Any:
        made: Any = right(group, choice, tables)
        if choice == FUSED:
            made.of_batch[1] = lambda: lambda: [torch.zeros(5, 12)]
        return made

    monkeypatch.setattr(sys.modules["embedding_kernels.tune"], "passes", broken)
    (group,) = tuned(WoundUp(own=20)).groups
    assert group.choice == OWN
    assert group.candidates[0].why_not.startswith("its sums are off by ")
    assert group.candidates[0].eager_us is None


def test_what_no_graph_takes_is_timed_eager_alone() -> None:
    clock = WoundUp(fused=10, own=20, captures=False)
    (group,) = tuned(clock).groups
    assert group.choice == FUSED
    assert group.candidates[0].graph_us is None
    assert group.candidates[0].why_not == (
        "It cannot be captured as a CUDA graph: operation not permitted when stream is capturing"
    )
    with pytest.raises(RuntimeError, match="No choice could be timed"):
        tuned(clock, decide_by="graph")


class Sometimes(nn.Module):
    """Looks up for long batches alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 8, mode="sum")

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor | None:
        return self.bag(indices, offsets) if len(indices) > 3 else None


def test_batches_that_do_not_come_to_a_group_are_not_timed_there() -> None:
    clock = WoundUp(fused=10, own=20)
    offsets = torch.tensor([0, 2])
    batches = [(torch.arange(length), offsets) for length in (3, 6, 9)]
    (group,) = tuned(clock, Sometimes(), batches).groups
    assert group.lookups == (6 + 9) / 3
    assert {turn for _, turn in clock.taken} == {0, 1}, "of the two that do"


def test_converted_rows_are_held_once_for_all_choices_of_their_type() -> None:
    group = contenders.Recorded(None, ek.EmbeddingTables([torch.randn(30, 8)]))  # type: ignore[arg-type]
    choices = [Choice("fused", "int8"), Choice("vectorized", "int8"), Choice("fused", "int8", 5)]
    made = [contenders.as_choice(group, choice) for choice in choices]
    assert len({tables.storage.data_ptr() for tables in [*made, group.tables]}) == 2
    assert [tables.kernels for tables in made] == [("fused",), ("vectorized",), ("fused",)]
    assert [tables._limits.few_rows for tables in made] == [None, None, 5]
    assert group.tables.weight(0).dtype == torch.float32


def test_what_is_touched_between_turns_is_the_least_that_it_can_be() -> None:
    tables = ek.EmbeddingTables([torch.randn(30, 8)])
    group = contenders.Recorded(None, tables)  # type: ignore[arg-type]
    numbers = [torch.arange(length) for length in (10, 2, 3)]
    batches = [
        [asked(tables, Call(None, (indices, torch.tensor([0, len(indices)])), {}))] for indices in numbers
    ]
    # Between two turns of the first: indices, outputs, and the distinct rows besides.
    least = (2 + 3) * 8 + 2 * 8 * 4
    assert contenders.bytes_between_turns(group, batches, ["unchanged"]) == least + 3 * 32
    assert contenders.bytes_between_turns(group, batches[::-1], ["unchanged"]) == least + 3 * 32
    assert contenders.bytes_between_turns(group, batches, ["unchanged", "float16"]) == least + 3 * 16


def test_rows_that_cannot_be_converted_are_told() -> None:
    huge = [nn.EmbeddingBag(30, 8, mode="sum", _weight=torch.full((30, 8), 1e30))]
    batches = [batch([huge[0].weight], 5, 6, seed=seed) for seed in range(2)]
    (group,) = tuned(WoundUp(fused=1, own=2), huge, batches, row_types=["int8"]).groups
    assert all(
        ("too large for a scale and bias" in each.why_not) == (each.choice.row_type == "int8")
        for each in group.candidates
    )


class Requests(nn.Module):
    """Calls some of its bags, in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Model()
        self.idle = nn.EmbeddingBag(4, 4)
        self.weighted = nn.ModuleDict({"w": nn.EmbeddingBag(20, 4, mode="sum")})

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        weights = torch.arange(indices.numel()).float()
        more = self.weighted["w"](indices, offsets=offsets, per_sample_weights=weights)
        found: Tensor = self.inner(indices, offsets) + more.sum(dim=1, keepdim=True)
        return found


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_models_own_calls_are_asked_of_every_choice(as_dict: bool) -> None:
    model = Requests()
    calls = [(INDICES, OFFSETS), (INDICES.flip(0), OFFSETS)]
    batches = [{"indices": i, "offsets": o} for i, o in calls] if as_dict else calls
    before = [model(*call) for call in calls]
    made = ek.tune(model, batches, clock=WoundUp(fused=10, own=5))
    assert [(group.path, group.kind) for group in made.groups] == [
        ("inner.bags", "ModuleList"),
        ("inner.named", "ModuleDict"),
        ("inner.one", "EmbeddingBag"),
        ("idle", "EmbeddingBag"),
        ("weighted", "ModuleDict"),
    ]
    assert [group.choice for group in made.groups] == [OWN, OWN, OWN, FUSED, OWN]
    assert made.groups[3].candidates == ()
    assert made.groups[0].lookups == 3 * INDICES.numel()
    for call, right in zip(calls, before, strict=True):  # all is as it was
        assert torch.equal(model(*call), right)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert type(model.idle) is nn.EmbeddingBag
    assert "the sample batches did not look up here" in str(made)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"batches": BATCHES[:1]}, ValueError, "two sample batches at the least"),
        ({"row_types": ["float8"]}, ValueError, "row_types lists some of float32, .*; got 'float8'"),
        ({"row_types": "int8"}, ValueError, "row_types lists some of .*; got 'int8'"),
        ({"decide_by": "hand"}, ValueError, "decide_by is .*, not 'hand'"),
        ({"blocks": 3}, ValueError, "11 blocks of 1 pass at the least, not 3 of 8"),
        ({"model": nn.Linear(2, 2)}, ValueError, "tune finds nothing here that optimize would swap"),
        (
            {"batches": [(INDICES, torch.tensor([0, 2, 4])), (INDICES + 99, torch.tensor([0, 2, 4]))]},
            ValueError,
            "looks up a row that table 0 of 30 rows has not",
        ),
        (
            {"batches": [(INDICES, torch.tensor([0, 2, 4])), (INDICES, torch.tensor([0, 3, 1]))]},
            ValueError,
            "wrong offsets for table 1",
        ),
        (
            {"batches": [(INDICES, torch.tensor([0, 2, 4])), (INDICES, torch.tensor([0, 2]))]},
            ValueError,
            "has 2 offsets, which are not features . bags . 1 for 2 features",
        ),
        ({"batches": [([4, 1], [0, 1, 2])] * 2}, ValueError, "has indices of list, not a tensor of int32 or"),
        ({"batches": [(INDICES.float(), OFFSETS[:3])] * 2}, ValueError, "has indices of torch.float32, not"),
        ({"batches": [(INDICES, OFFSETS[:3].double())] * 2}, ValueError, "has offsets of torch.float64, not"),
        (
            {"batches": [(INDICES, OFFSETS[:3], torch.ones(2))] * 2},
            ValueError,
            r"per-sample weights \[2\] beside indices \[7\], and should have one for each",
        ),
        ({"batches": [INDICES] * 2}, ValueError, r"of bags are \(indices, offsets\) or .*, not a Tensor"),
        ({"batches": [(INDICES,)] * 2}, ValueError, r"per_sample_weights\), not a tuple of 1"),
        ({"row_types": None}, ValueError, "row_types lists some of .*; got None"),
        ({"blocks": 11.5}, ValueError, "whole blocks and passes, not 11.5 of 8"),
        ({"batches": iter(BATCHES)}, ValueError, "takes a list of sample batches, not a list_iterator"),
    ],
)
def test_wrong_input_is_told_in_words(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        tuned(WoundUp(fused=1, own=1), **options)


def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="this model's tables are on the cpu; move them"):
        ek.tune(copy.deepcopy(LIST), BATCHES)


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dtype", [None, torch.qint8, torch.half])
def test_torchrecs_collections(dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchrec()
    from tests.unit.embedding_kernels.test_torchrec import collection, features, quantised

    model = nn.Module()
    ebc = collection() if dtype is None else quantised(dtype)
    model.add_module("ebc", ebc)
    model.forward = lambda given: ebc(given)
    keys = ["d", "unused", "c", "b", "a"]
    made = ek.tune(
        model,
        [features(keys, 4), features(keys, 6)],
        clock=WoundUp(fused=10, own=20, float16=30, int8=30),
        row_types=["float16", "int8"],
    )
    (group,) = made.groups
    assert group.path == "ebc"
    assert group.choice == FUSED
    assert [each.why_not for each in group.candidates if each.eager_us is None] == []
    assert len(group.candidates) == (7 if dtype is None else 3)
    assert sum(shape.count for shape in group.tables) == 5  # of tables that two features look up, each counts
    if dtype is not None:
        monkeypatch.setattr(Plan, "differences", lambda self, device: "")
        converted = dataclasses.replace(group, choice=Choice("fused", "int4"))
        with pytest.raises(ek.PlanError, match="fused, int4 rows: FBGEMM's rows keep their type"):
            ek.optimize(model, plan=dataclasses.replace(made, groups=(converted,)), strict=True)


def test_intervals_of_medians() -> None:
    values = [float(value) for value in range(1, 21)]
    assert statistics.ends(values, 0.95) == (6.0, 15.0)
    assert statistics.ends(values, 0.999) == (3.0, 18.0)
    assert statistics.ends([1.0, 2.0], 0.95) == (1.0, 2.0)
    drawn = random.Random(0)
    held = 0
    for _ in range(400):
        low, high = statistics.ends([drawn.gauss(0, 1) for _ in range(20)], 0.95)
        held += low <= 0 <= high
    assert held >= 0.93 * 400
    for first, second in itertools.product((1.0, 1.01), repeat=2):
        assert not statistics.told_apart([first] * 8, [second] * 8, 1)
    assert statistics.told_apart([1.0] * 8, [1.02] * 8, 3)


def test_vectorized_is_chosen_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tuned(WoundUp(fused=10, own=20, vectorized=8))
    assert made.groups[0].choice == Choice("vectorized", "unchanged")
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    model = ek.optimize(copy.deepcopy(LIST), plan=made, strict=True)
    assert model.kernels == ("vectorized", "vectorized")
    with pytest.raises(ValueError, match="either a plan or a kernel"):
        ek.optimize(copy.deepcopy(LIST), plan=made, kernel="vectorized")


@pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="needs FBGEMM (`make setup`)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["inference", "training"])
def test_fbgemms_modules(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.embedding_kernels import test_fbgemm as fbgemm

    theirs = fbgemm.inference(["FP32", "INT8", "FP16"]) if kind == "inference" else fbgemm.training()
    rows = fbgemm.ROWS if kind == "inference" else (fbgemm.ROWS[0], fbgemm.ROWS[1], fbgemm.ROWS[0])
    model = nn.ModuleDict({"tbe": theirs})
    model.forward = lambda indices, offsets: theirs(indices, offsets)
    number = torch.int32 if kind == "inference" else torch.int64
    batches = [tuple(each.to(number) for each in fbgemm.call(rows, seed=seed)) for seed in range(2)]
    made = ek.tune(model, batches, clock=WoundUp(fused=10, own=20), row_types=["float16"])
    (group,) = made.groups
    assert group.choice == FUSED
    assert [each.why_not for each in group.candidates] == ["", "", ""]
    assert [table.rows for table in group.tables] == list(rows)
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    ek.optimize(model, plan=made, strict=True)
    assert isinstance(model["tbe"], ek.EmbeddingTables)


@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_requests_bring_features_from_which_nothing_is_worked_out_yet() -> None:
    import_torchrec()
    from tests.unit.embedding_kernels.test_torchrec import collection, features

    seen: list[Any] = []

    class Looking(WoundUp):
        def eager_us(self, passes: Any, turns: Any) -> list[float]:
            call = passes.of_batch[turns[0]]()
            for each in call.__closure__[0].cell_contents:
                seen.append(each.args[0].offsets_or_none())
            return super().eager_us(passes, turns)

    model = nn.ModuleDict({"ebc": collection()})
    model.forward = lambda given: model["ebc"](given)
    keys = ["a", "b", "c", "d"]
    ek.tune(model, [features(keys, 4), features(keys, 6)], clock=Looking(fused=10, own=20))
    assert seen
    assert all(offsets is None for offsets in seen)
