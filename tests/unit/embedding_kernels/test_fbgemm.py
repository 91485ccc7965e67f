"""FBGEMM's table-batched modules against FBGEMM itself."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.served_package import ek, import_fbgemm

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="needs FBGEMM (`make setup`)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
ROWS, DIMS = (50, 20, 31), (8, 12, 16)


def inference(types: Sequence[str], *, rows: Sequence[int] = ROWS, **options: Any) -> Any:
    """A module for inference: tables of DIMS and these types, with random values."""
    gpu = import_fbgemm()
    specs = [
        (f"t{n}", rows[n], DIMS[n], getattr(gpu.SparseType, kind), gpu.EmbeddingLocation.HOST)
        for n, kind in enumerate(types)
    ]
    module = gpu.Inference(specs, device="cpu", **{"output_dtype": gpu.SparseType.FP32} | options)
    module.fill_random_weights()
    generator = torch.Generator().manual_seed(7)
    for (values, pairs), kind in zip(module.split_embedding_weights(), types, strict=True):
        if pairs is None:
            dtype = torch.half if kind == "FP16" else torch.float
            real = torch.randn(len(values), values.size(1) // dtype.itemsize, generator=generator)
            values.copy_(real.to(dtype).view(torch.uint8))
        else:
            pairs.copy_(torch.rand(len(pairs), 2, generator=generator).half().view(torch.uint8))
    return module


def training(**options: Any) -> Any:
    """A module for training with two tables, one of two features."""
    gpu = import_fbgemm()
    place = (gpu.EmbeddingLocation.HOST, gpu.ComputeDevice.CPU)
    given = {"feature_table_map": [0, 1, 0]} | options
    module = gpu.Training([(ROWS[0], 8, *place), (ROWS[1], 12, *place)], device=torch.device("cpu"), **given)
    generator = torch.Generator().manual_seed(8)
    for table in module.split_embedding_weights():
        table.copy_(torch.randint(-9, 9, table.shape, generator=generator))
    return module


def call(rows: Sequence[int], bags: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices and offsets for features over tables of so many rows."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 5, (len(rows) * bags,), generator=generator)
    parts = [
        torch.randint(0, of, (int(part.sum()),), generator=generator)
        for of, part in zip(rows, lengths.split(bags), strict=True)
    ]
    return torch.cat(parts), nn.functional.pad(lengths.cumsum(0), (1, 0))


def near(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == wanted.dtype
    rough = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[found.dtype]
    torch.testing.assert_close(found, wanted, rtol=rough, atol=rough)


@pytest.mark.parametrize("output", ["FP32", "FP16", "BF16"])
@pytest.mark.parametrize("mode", ["SUM", "MEAN"])
@pytest.mark.parametrize("types", [("INT8", "INT4", "INT8"), ("FP16", "FP32", "INT4"), ("FP32",) * 3])
def test_a_module_for_inference(types: Sequence[str], mode: str, output: str) -> None:
    gpu = import_fbgemm()
    theirs = inference(
        types,
        pooling_mode=getattr(gpu.PoolingMode, mode),
        output_dtype=getattr(gpu.SparseType, output),
        feature_table_map=[0, 0, 1, 2, 2],
    )
    model = nn.ModuleDict({"tbe": theirs})
    state = model.state_dict()
    ours = ek.optimize(model, strict=True)["tbe"]
    said = "tbe (IntNBitTableBatchedEmbeddingBagsCodegen): 3 tables swapped"
    assert [str(swap) for swap in ek.report(model)] == [said]
    indices, offsets = call([ROWS[table] for table in theirs.feature_table_map])
    for dtype in (torch.int32, torch.int64):
        near(ours(indices.to(dtype), offsets.to(dtype)), theirs(indices.to(dtype), offsets.to(dtype)))
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)


def kept_of(rows: int, share: float = 0.5) -> tuple[Tensor, int]:
    """A remapping of so many rows that keeps about this share of them, and how many it keeps."""
    kept = torch.rand(rows, generator=torch.Generator().manual_seed(rows)) < share
    return torch.where(kept, kept.cumsum(0) - 1, -1).int(), int(kept.sum())


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize("mode", ["SUM", "MEAN"])
@pytest.mark.parametrize("types", [("INT8", "INT4", "INT8"), ("FP16", "INT4", "FP32")])
def test_pruned_tables_are_taken_over(types: Sequence[str], mode: str, as_array: bool) -> None:
    gpu = import_fbgemm()
    (first, first_kept), (last, last_kept) = kept_of(90), kept_of(70, 0.3)
    theirs = inference(
        types,
        rows=(first_kept, 20, last_kept),
        pooling_mode=getattr(gpu.PoolingMode, mode),
        index_remapping=[first, None, last],
        use_array_for_index_remapping=as_array,
    )
    keys = list(theirs.state_dict())
    ours = ek.optimize(theirs, strict=True)
    for seed in range(3):
        indices, offsets = (tensor.int() for tensor in call((90, 20, 70), seed=seed))
        near(ours(indices, offsets), theirs(indices, offsets))
    assert list(ours.state_dict()) == keys
    assert [ours.weight(table).size(0) for table in range(3)] == [90, 20, 70]
    near(copy.deepcopy(ours)(indices, offsets), theirs(indices, offsets))


def test_sample_weights() -> None:
    theirs = inference(("INT8", "FP32", "INT4"))
    indices, offsets = call(ROWS)
    weights = torch.rand(indices.numel())
    near(ek.optimize(theirs)(indices, offsets, weights), theirs(indices, offsets, weights))


def test_wrong_row_numbers_are_told_by_table() -> None:
    ours = ek.optimize(inference(("INT8", "INT8", "INT8"), feature_table_map=[0, 0, 1, 2]))
    ours(torch.tensor([1, 77]), torch.tensor([0, 1, 2, 2, 2]))
    assert ek.bad_lookups(ours) == [ek.BadLookups("", rows=1, offsets=0, table="t0", bag=0, index=77)]


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
@pytest.mark.parametrize("mode", ["SUM", "MEAN"])
def test_a_module_for_training_serves_from_its_own_memory(mode: str, precision: str) -> None:
    gpu = import_fbgemm()
    theirs = training(
        pooling_mode=getattr(gpu.PoolingMode, mode),
        weights_precision=getattr(gpu.SparseType, precision),
    )
    indices, offsets = call((ROWS[0], ROWS[1], ROWS[0]))
    ours = ek.optimize(theirs, strict=True)
    assert ours.storage.data_ptr() == theirs.weights_host.data_ptr()
    with torch.no_grad():
        near(ours(indices, offsets), theirs(indices, offsets))
        theirs.split_embedding_weights()[1].fill_(3)
        wanted = theirs(indices, offsets)
        near(ours(indices, offsets), wanted)
        state, other = ours.state_dict(), pickle.loads(pickle.dumps(ours))
        assert list(state) == list(theirs.state_dict())
        assert all(torch.equal(held, theirs.state_dict()[key]) for key, held in state.items())
        ours.load_state_dict(state | {"weights_host": torch.zeros_like(state["weights_host"])})
        assert not theirs(indices, offsets).any()
        near(other(indices, offsets), wanted)
        theirs.load_state_dict(other.state_dict())
        near(ours(indices, offsets), wanted)


def test_a_module_for_training_writes_16_bits() -> None:  # which FBGEMM's own does not on the CPU
    gpu = import_fbgemm()
    indices, offsets = call((ROWS[0], ROWS[1], ROWS[0]))
    with torch.no_grad():
        wanted = training()(indices, offsets)
        for kind, dtype in (("FP16", torch.float16), ("BF16", torch.bfloat16)):
            ours = ek.optimize(training(output_dtype=getattr(gpu.SparseType, kind)), strict=True)
            near(ours(indices, offsets), wanted.to(dtype))


def test_a_module_for_training_changes_its_type_and_its_rows() -> None:
    theirs = training()
    indices, offsets = call((ROWS[0], ROWS[1], ROWS[0]))
    ours = copy.deepcopy(ek.optimize(theirs)).half()
    with torch.no_grad():
        torch.testing.assert_close(ours(indices, offsets), theirs(indices, offsets))  # of small integers
        assert torch.equal(ours.state_dict()["weights_host"], theirs.weights_host.half())
        ours.update_rows(1, torch.tensor([4]), torch.full((1, 12), 9.0))
        assert (ours(torch.tensor([4]), torch.tensor([0, 0, 1, 1]))[:, 8:20] == 9).all()


def test_what_belongs_to_training_is_refused_in_words() -> None:
    ours = ek.optimize(training())
    indices, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2, 3])
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        ours(indices, offsets).sum().backward()
    with pytest.raises(ValueError, match="one batch size for all features"):
        ours(indices, offsets, batch_size_per_feature_per_rank=[[1], [1], [1]])
    with pytest.raises(ValueError, match="does not know what hash_zch_identities asks for"):
        ours(indices, offsets, hash_zch_identities=indices)


def pruned(remapping: Tensor, kept: int, **options: Any) -> Any:
    """Three tables, the first of which is pruned."""
    given = {"index_remapping": [remapping, None, None]} | options
    return inference(("INT8", "INT4", "FP16"), rows=(kept, 20, 31), **given)


def test_a_state_of_other_tables_is_refused() -> None:
    theirs = pruned(*kept_of(90))
    ours = ek.optimize(theirs)
    state = {key: values.clone() for key, values in theirs.state_dict().items()}
    state["index_remappings_array"][3] += 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="index_remappings_array: is of other tables than are held"):
            ours.load_state_dict(state)


def unpooled() -> Any:
    gpu = import_fbgemm()
    return inference(("INT8",), pooling_mode=gpu.PoolingMode.NONE)


def without_weights() -> Any:
    gpu = import_fbgemm()
    return gpu.Inference([("t", 5, 8, gpu.SparseType.INT8, gpu.EmbeddingLocation.HOST)], device="cpu")


def misleading() -> Any:
    remapping, kept = kept_of(90)
    remapping[8] = kept
    return pruned(remapping, kept)


def hooked() -> Any:
    module = inference(("INT8", "INT8"))
    module.register_forward_hook(lambda *_: None)
    return module


def in_managed_memory() -> Any:
    module = inference(("INT8", "INT8"))
    module.weights_uvm = torch.zeros(8, dtype=torch.uint8)
    return module


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (unpooled, "it does not pool its rows"),
        (without_weights, "it has no weights yet"),
        (lambda: pruned(*kept_of(90), feature_table_map=[0, 0, 1, 2]), "whose remappings FBGEMM mixes up"),
        (misleading, "the remapping of its table 0 leads outside the "),
        (hooked, "it has forward hooks"),
        (in_managed_memory, "its tables lie in managed memory"),
        (lambda: inference(("INT2", "INT8")), "its rows are int2, not int8, int4, fp16"),
        (
            lambda: inference(("INT8",), output_dtype=import_fbgemm().SparseType.INT8),
            "its outputs are not float32",
        ),
        (lambda: inference(("INT8",), reverse_qparam=True), "do not begin with scale and bias"),
        (
            lambda: training(weights_precision=import_fbgemm().SparseType.INT8),
            "its rows are int8, not fp32",
        ),
    ],
)
def test_what_is_left_is_named(make: Any, why: str) -> None:
    theirs = make()
    with pytest.raises(ek.UnsupportedError, match=f"left as it is, since .*{why}"):
        ek.optimize(theirs, strict=True)
    assert ek.optimize(theirs) is theirs


def test_another_of_fbgemms_modules_is_named() -> None:
    package = {"__module__": import_fbgemm().Training.__module__}
    theirs = type("DenseTableBatchedEmbeddingBagsCodegen", (nn.Module,), package)()
    with pytest.raises(ek.UnsupportedError, match=r"of FBGEMM's modules IntNBit.* and Split.* not Dense"):
        ek.optimize(theirs, strict=True)


@pytest.mark.parametrize(
    ("make", "rows"), [(lambda: pruned(*kept_of(90)), (90, 20, 31)), (training, (50, 20, 50))]
)
def test_compiled(make: Any, rows: Sequence[int]) -> None:
    theirs = make()
    compiled: Any = torch.compile(ek.optimize(theirs), fullgraph=True, dynamic=True)
    with torch.no_grad():
        for bags in (3, 8):
            indices, offsets = (tensor.int() for tensor in call(rows, bags))
            near(compiled(indices, offsets), theirs(indices, offsets))
