"""Moving, copying, saving and changing tables that lie in one allocation."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.served import assert_right, batch, expected, some_tables
from tests.served_package import ek

TABLES = some_tables((6, 4, "float32"), (5, 3, "float16"), (7, 5, "int8"), (4, 9, "int4"))
INDICES, OFFSETS = batch(TABLES, 6, 4)


def made() -> ek.EmbeddingTables:
    return ek.EmbeddingTables(TABLES)


def through_torch_save(module: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), through_torch_save]
)
@pytest.mark.parametrize(
    "tables", [TABLES, [nn.EmbeddingBag(6, 4, mode="sum"), nn.EmbeddingBag(5, 3, mode="sum")]]
)
def test_copies_have_tables_of_their_own(copied: Callable[[Any], Any], tables: list[Any]) -> None:
    module = ek.EmbeddingTables(tables)
    indices, offsets = batch(TABLES[: len(tables)], 6, 4)
    other = copied(module)
    before = module(indices, offsets).detach()
    assert torch.equal(other(indices, offsets), before)
    other.weight(0).zero_()
    assert torch.equal(module(indices, offsets), before)
    assert not other(indices, offsets)[:, :4].any()


def test_many_tables_are_handed_to_another_process_as_few_files() -> None:
    code = """
import resource
from multiprocessing.reduction import ForkingPickler
import torch, torch.multiprocessing
from tests.served_package import ek
module = ek.EmbeddingTables([torch.ones(2, 4)] * 200)
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
print(len(ForkingPickler.dumps(module)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000


def test_state_dict_is_of_views_that_can_be_saved_one_by_one() -> None:
    module = made()
    state = module.state_dict()
    assert list(state) == ["0.weight", "1.weight", "2.weight", "2.scale_bias", "3.weight", "3.scale_bias"]
    state["0.weight"][2] = 8
    assert (module.weight(0)[2] == 8).all()
    file = io.BytesIO()
    torch.save(state, file)
    assert file.tell() < 6000
    file.seek(0)
    other = ek.EmbeddingTables(
        some_tables((6, 4, "float32"), (5, 3, "float16"), (7, 5, "int8"), (4, 9, "int4"), seed=9)
    )
    held = other.storage.data_ptr()
    other.load_state_dict(torch.load(file), assign=True)
    assert torch.equal(other(INDICES, OFFSETS), module(INDICES, OFFSETS))
    assert other.storage.data_ptr() == held


def test_a_state_dict_that_does_not_fit_is_refused_in_pytorchs_words() -> None:
    module = made()
    state: dict[str, Tensor] = module.state_dict()
    state["9.weight"] = state.pop("1.weight")
    state["0.weight"] = torch.zeros(2, 2)
    state["2.weight"] = torch.zeros(7, 5)
    state["3.scale_bias"] = 7  # type: ignore[assignment]
    with pytest.raises(RuntimeError) as raised:
        module.load_state_dict(state)
    said = str(raised.value)
    assert 'Missing key(s) in state_dict: "1.weight"' in said
    assert 'Unexpected key(s) in state_dict: "9.weight"' in said
    assert "0.weight: has the shape [2, 2], and [6, 4] is held" in said
    assert "2.weight: is torch.float32, and quantised rows are held" in said
    assert "3.scale_bias: is no tensor but int" in said


def test_parameters_become_views() -> None:
    bags = [nn.EmbeddingBag(6, 4), nn.EmbeddingBag(5, 3)]
    values = [bag.weight.detach().clone() for bag in bags]
    module = ek.EmbeddingTables(bags)
    for number, (bag, before) in enumerate(zip(bags, values, strict=True)):
        assert torch.equal(bag.weight, before)
        assert bag.weight.data_ptr() == module.weight(number).data_ptr()
    assert not list(module.parameters())
    with torch.no_grad():
        bags[1].weight.fill_(3)
    assert (module.weight(1) == 3).all()


def test_a_table_that_is_given_twice_is_held_once() -> None:
    weight = nn.Parameter(torch.ones(1000, 4))
    module = ek.EmbeddingTables([weight, weight])
    assert module.weight(0).data_ptr() == module.weight(1).data_ptr()
    assert module.storage.numel() < 1.1 * 16000
    halved = module.half()
    assert halved.weight(0).data_ptr() == halved.weight(1).data_ptr()


def test_a_table_without_rows_takes_no_others_place() -> None:
    module = ek.EmbeddingTables([torch.zeros(0, 8), torch.ones(5, 8), torch.zeros(0, 4)]).half()
    assert [list(module.weight(number).shape) for number in range(3)] == [[0, 8], [5, 8], [0, 4]]
    assert (module.weight(1) == 1).all()


def test_rows_change_their_type_as_parameters_would() -> None:
    module = made()
    before = module(INDICES, OFFSETS)
    assert module.bfloat16().output_dtype == torch.float32  # quantised rows stay among them
    assert module.weight(0).dtype == module.weight(1).dtype == torch.bfloat16
    assert_right(module(INDICES, OFFSETS), before.double(), 2000)
    plain = ek.EmbeddingTables([torch.randn(5, 3)])
    assert plain.half()(torch.tensor([1]), torch.tensor([0, 1])).dtype == torch.float16
    with pytest.raises(TypeError, match="float32, float16 or bfloat16"):
        plain.double()
    assert plain.weight(0).dtype == torch.float16


def test_tables_that_were_on_no_device_are_made_and_loaded() -> None:
    meta = [torch.empty(6, 4, device="meta"), torch.empty(5, 3, device="meta", dtype=torch.float16)]
    module = ek.EmbeddingTables(meta).to_empty(device="cpu")
    module.load_state_dict(ek.EmbeddingTables(TABLES[:2]).state_dict())
    indices, offsets = batch(TABLES[:2], 6, 4)
    assert_right(module(indices, offsets), expected(TABLES[:2], indices, offsets))
    assert module.bad_lookups() is None


def test_what_captured_graphs_read_stays_while_tables_stay() -> None:
    def read(module: ek.EmbeddingTables) -> list[int]:
        return [held.data_ptr() for held in (module.storage, module.faults, module.descriptors, module.alone)]

    module = made()
    module.look_up_one(0, torch.tensor([99]), torch.tensor([0, 1]))
    before = read(module)
    assert read(module.to("cpu")) == before
    module.use_kernel("vectorized")
    assert read(module)[:2] == before[:2]
    assert read(module)[2:] != before[2:]
    module.use_kernel("fused")
    assert read(module) == before
    bad = module.half().bad_lookups()
    assert bad is not None
    assert bad.index == 99


class Stream:
    """Stands in for one of CUDA's, and writes down what waits for what."""

    device = torch.device("cuda", 0)

    def __init__(self, name: str, waits: list[str]) -> None:
        self.name, self.waits = name, waits

    def wait_stream(self, other: Stream) -> None:
        self.waits.append(f"{self.name} for {other.name}")


def test_lookups_on_named_streams_wait_for_an_update_and_it_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream("here", waits))
    module, streams = made(), [Stream("first", waits), Stream("second", waits)]
    module.update_rows(0, torch.tensor([1]), torch.full((1, 4), 9.0), streams=streams)  # type: ignore[arg-type]
    wanted = ["here for first", "here for second", "first for here", "second for here"]
    assert waits == wanted
    with pytest.raises(RuntimeError, match="has the shape"), ek.updating(*streams):  # type: ignore[arg-type]
        module.load_state_dict({"0.weight": torch.zeros(2, 2)}, strict=False)
    assert waits == wanted * 2


def test_rows_are_updated() -> None:
    module = made()
    module.update_rows(0, torch.tensor([1, 5]), torch.full((2, 4), 9.0))
    module.update_rows("1", torch.tensor([4]), torch.full((1, 3), 7.0))
    for number, row_type in ((2, "int8"), (3, "int4")):
        dim = {"int8": 5, "int4": 9}[row_type]
        new = ek.quantise(torch.arange(2.0 * dim).view(2, dim), row_type)  # type: ignore[arg-type]
        module.update_rows(number, torch.tensor([0, 3]), new)
        one = module.look_up_one(number, torch.tensor([3]), torch.tensor([0, 1]))
        assert_right(one, new.dequantised()[1:].double())
    assert (module.weight(0)[[1, 5]] == 9).all()
    assert torch.equal(module.weight(0)[[0, 2, 3, 4]], TABLES[0][[0, 2, 3, 4]])  # type: ignore[index]
    assert (module.weight(1)[4] == 7).all()
    module.update_rows(0, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))


@pytest.mark.parametrize(
    ("table", "rows", "values", "error", "words"),
    [
        (0, [6], torch.zeros(1, 4), IndexError, "has 6 rows, and none is number 6"),
        (0, [-1], torch.zeros(1, 4), IndexError, "none is number -1"),
        (0, [1], torch.zeros(1, 3), ValueError, r"take values \[1, 4\], not \[1, 3\]"),
        (2, [1], torch.zeros(1, 5), ValueError, r"int8 and 5 columns; give ek\.quantise\(values, "),
        (0, [1], ek.quantise(torch.zeros(1, 4), "int8"), ValueError, "holds rows of float32 .* as a tensor"),
        (0, [1], torch.zeros(1, 4, dtype=torch.complex64), ValueError, "real numbers, not torch.complex64"),
        (7, [1], torch.zeros(1, 4), IndexError, "There are 4 tables"),
        (0, [1, 1], torch.zeros(2, 4), ValueError, "give each row once"),
        (0, [True], torch.zeros(1, 4), TypeError, "a tensor of integers, not torch.bool"),
        (0, [1.0], torch.zeros(1, 4), TypeError, "a tensor of integers, not torch.float32"),
        ("x", [1], torch.zeros(1, 4), KeyError, "no table 'x'"),
        (0, [1], torch.zeros(1, 4, device="meta"), ValueError, "dense tensors on a device, not sparse ones"),
        (0, [1], torch.zeros(1, 4).to_sparse(), ValueError, "dense tensors on a device, not sparse ones"),
    ],
)
def test_updates_that_do_not_fit_are_named(
    table: Any, rows: list[Any], values: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        made().update_rows(table, torch.tensor(rows), values)


@pytest.mark.parametrize("tables", [[3], [torch.zeros(2, 4), "rows"], [torch.nn.Embedding(2, 4)]])
def test_what_is_no_table_is_named(tables: list[Any]) -> None:
    words = f"number {len(tables) - 1} is a {type(tables[-1]).__name__}"
    with pytest.raises(TypeError, match=words):
        ek.EmbeddingTables(tables)


@pytest.mark.parametrize("made_there", [False, True])
def test_what_is_made_in_inference_mode_is_changed_outside(made_there: bool) -> None:
    with torch.inference_mode(made_there):
        bags = nn.ModuleList(nn.EmbeddingBag(5, 4, mode="sum") for _ in range(2))
    before = [parameter.clone() for parameter in bags.parameters()]
    with torch.inference_mode():
        model = ek.optimize(bags, strict=True)
        halved = copy.deepcopy(model).half()
        quantised = ek.EmbeddingTables([TABLES[2]])
    indices, offsets = torch.tensor([1, 9]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        assert torch.equal(model(indices, offsets)[0, :4], before[0][1])
    assert model.bad_lookups(forget=True).index == 9
    modules: list[Any] = [model, halved, quantised]
    for module in modules:
        module.load_state_dict({key: torch.zeros_like(held) for key, held in module.state_dict().items()})
        assert not module.weight(0).any()
    halved.update_rows(1, torch.tensor([2]), torch.ones(1, 4))
    assert halved.weight(1).sum() == 4
    if not made_there:
        with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
            model(indices, offsets).sum().backward()


def test_inference_mode_and_autocast() -> None:
    with torch.inference_mode():
        module = made()
        assert_right(module(INDICES, OFFSETS), expected(TABLES, INDICES, OFFSETS), 4)
    module = made()
    with torch.inference_mode():
        assert_right(module(INDICES, OFFSETS), expected(TABLES, INDICES, OFFSETS), 4)
    weights = torch.rand(INDICES.numel()).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(INDICES, OFFSETS, weights)
    assert output.dtype == torch.float32  # as nn.EmbeddingBag, which autocast leaves alone
    assert_right(output, expected(TABLES, INDICES, OFFSETS, weights=weights.float()), 4)


def test_tables_past_a_devices_memory_are_refused_in_words() -> None:
    # A number that stands for 2^47: more than a process can address, where they are copied.
    rows = torch.ones(1, 1).expand(2**31, 2**16)
    said = r"these take 562,949\.95 GB in one piece, .* and cpu has no room for them\.$"
    with pytest.raises(torch.OutOfMemoryError, match=said):
        ek.EmbeddingTables([rows])
    model = nn.Sequential(nn.EmbeddingBag.from_pretrained(rows, mode="sum"))
    with pytest.raises(torch.OutOfMemoryError, match=said):
        ek.optimize(model)
    assert type(model[0]) is nn.EmbeddingBag


def test_views_that_others_keep_outlive_a_move_into_shared_memory() -> None:
    model = ek.optimize(nn.Sequential(nn.EmbeddingBag(500, 16, mode="sum")))
    kept, indices = model.state_dict()["0.weight"], torch.arange(8).view(4, 2)
    before, output = kept.clone(), model(indices)
    moved = copy.deepcopy(model)
    for each in (model, moved):
        ForkingPickler.dumps(each)  # as on the way to another process
    copy.copy(model).share_memory()
    model.share_memory()
    others = [torch.full((500, 16), 1e30) for _ in range(50)]  # where freed memory was
    assert torch.equal(kept, before), len(others)
    assert torch.equal(model(indices), output)
    assert torch.equal(model.state_dict()["0.weight"], before)
    assert torch.equal(moved.state_dict()["0.weight"], before)


def test_a_parameter_elsewhere_in_the_model_survives_shared_memory() -> None:
    model = nn.Module()
    model.bag = nn.EmbeddingBag(500, 16, mode="sum")
    model.out = nn.Linear(16, 500, bias=False)
    model.out.weight = model.bag.weight
    before = model.out.weight.detach().clone()
    ek.optimize(model)
    model.share_memory()
    assert torch.equal(model.out.weight, before)
    assert torch.equal(model.state_dict()["bag.weight"], before)


@pytest.mark.parametrize("row_type", ["float32", "int8"])
def test_rows_are_updated_by_others_of_the_same_table(row_type: str) -> None:
    rows = torch.arange(6.0)[:, None].expand(6, 4) + torch.arange(4.0)
    tables = ek.EmbeddingTables([rows if row_type == "float32" else ek.quantise(rows, "int8")])
    state, order = tables.state_dict(), torch.tensor([5, 3, 4, 0, 1, 2])
    want = {key: value.clone()[order.argsort()] for key, value in state.items()}
    values = state["0.weight"]
    if row_type == "int8":
        values = ek.QuantisedTable("int8", 4, values, state["0.scale_bias"])
    tables.update_rows(0, order, values)
    assert all(torch.equal(tables.state_dict()[key], want[key]) for key in want)


def test_tables_are_held_once_after_they_were_handed_away_or_changed_their_type() -> None:
    model = ek.optimize(nn.Sequential(nn.EmbeddingBag(500, 16, mode="sum")))
    lent = weakref.ref(model[0]._lent.memory)
    ForkingPickler.dumps(model)
    assert lent() is None
    other = ek.optimize(nn.Sequential(nn.EmbeddingBag(500, 16, mode="sum")))
    lent = weakref.ref(other[0]._lent.memory)
    other.state_dict()
    assert lent() is other[0]._lent.memory is not None
    other.half()
    assert lent() is None


def test_a_state_dict_is_of_plain_tensors_in_inference_mode_too() -> None:
    model = ek.optimize(nn.Sequential(nn.EmbeddingBag(5, 4, mode="sum")))
    with torch.inference_mode():
        state = model.state_dict()
    state["0.weight"].mul_(2)
    assert not state["0.weight"].is_inference()


def test_a_weight_of_tables_that_optimize_made_is_refused() -> None:
    bag = nn.EmbeddingBag(5, 4, mode="sum")
    weight, model = bag.weight, ek.optimize(bag)
    for table in (bag, weight):
        with pytest.raises(ValueError, match="Table 0 lies in tables that were made of it before"):
            ek.EmbeddingTables([table])
    assert torch.equal(model.weight, weight)
