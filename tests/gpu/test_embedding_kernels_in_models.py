"""Models with the package's tables in the place of their own, on a real GPU; see test_embedding_kernels."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.served_package import ek, import_fbgemm, import_torchrec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def test_a_model_is_optimised_and_moved() -> None:
    bags = nn.ModuleList(nn.EmbeddingBag(100, dim, mode="sum") for dim in (8, 16, 20)).cuda()
    indices, offsets = torch.randint(0, 100, (300,)).cuda(), torch.arange(0, 100, 4).cuda()
    with torch.no_grad():
        wanted = [bag(indices[:100], offsets) for bag in bags]
        model = ek.optimize(bags, strict=True)
        for table, right in zip(model, wanted, strict=True):
            torch.testing.assert_close(table(indices[:100], offsets), right)
        ends = torch.cat([offsets + 100 * number for number in range(3)] + [torch.tensor([300]).cuda()])
        together = model(indices[:100].repeat(3), ends)
        torch.testing.assert_close(together, torch.cat(wanted, dim=1))
        away = model.cpu()(indices[:100].repeat(3).cpu(), ends.cpu())
        torch.testing.assert_close(away, together.cpu())
        half = model.cuda().half()(indices[:100].repeat(3), ends)
        assert half.dtype == torch.float16
        torch.testing.assert_close(half.float(), together, rtol=1e-2, atol=1e-2)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
        assert model(indices[:100].repeat(3), ends).dtype == torch.float16


@pytest.mark.fbgemm
@pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec")
def test_torchrecs_collection() -> None:
    torchrec = import_torchrec()
    config = torchrec.EmbeddingBagConfig
    tables = [
        config(name=f"t{n}", embedding_dim=8 * n, num_embeddings=50, feature_names=[f"f{n}", "x"])
        for n in (1, 2, 3)
    ]
    theirs = torchrec.EmbeddingBagCollection(tables=tables, device=torch.device("cuda"))
    ours = ek.optimize(copy.deepcopy(theirs), strict=True)
    keys = ["x", "f3", "f1", "f2"]
    lengths = torch.randint(0, 5, (4 * 40,))
    values = torch.randint(0, 50, (int(lengths.sum()),))
    features = torchrec.KeyedJaggedTensor(keys, values.cuda(), lengths=lengths.cuda())
    wanted, found = theirs(features), ours(features)
    assert found.keys() == wanted.keys()
    torch.testing.assert_close(found.values(), wanted.values())
    for order in (["f1", "x", "f2", "f3"], keys):  # as the tables have them, and one that was looked up
        given = torchrec.KeyedJaggedTensor(order, values.cuda(), lengths=lengths.cuda())
        given.offsets()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            captured = ours(given).values()
        graph.replay()
        torch.testing.assert_close(captured, theirs(given).values())
    given = torchrec.KeyedJaggedTensor(["x", "f1", "f2", "f3"], values.cuda(), lengths=lengths.cuda())
    given.offsets()
    with pytest.raises(RuntimeError, match="look up once"):
        captured_first(ours, given)


def captured_first(ours: Any, given: Any) -> None:
    """A lookup in a capture. PyTorch warns of one that holds nothing, so it holds something else, too."""
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        given.values().add(1)
        ours(given)


@pytest.mark.fbgemm
@pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="needs FBGEMM")
@pytest.mark.parametrize("as_array", [None, True, False])
def test_fbgemms_module_for_inference(as_array: bool | None) -> None:
    gpu = import_fbgemm()
    kept = torch.arange(90) % 3 > 0
    remapping = torch.where(kept, kept.cumsum(0) - 1, -1).int()
    pruned: dict[str, Any] = {} if as_array is None else {"index_remapping": [remapping, None]}
    specs = [
        ("a", 60, 64, gpu.SparseType.INT8, gpu.EmbeddingLocation.DEVICE),
        ("b", 40, 32, gpu.SparseType.INT4, gpu.EmbeddingLocation.DEVICE),
    ]
    theirs = gpu.Inference(
        specs,
        device="cuda",
        output_dtype=gpu.SparseType.FP32,
        use_array_for_index_remapping=bool(as_array),
        **pruned,
    )
    theirs.fill_random_weights()
    for _, pairs in theirs.split_embedding_weights():
        pairs.copy_(torch.rand(len(pairs), 2).half().view(torch.uint8))
    ours = ek.optimize(theirs, strict=True)
    indices = torch.cat([torch.arange(90 if pruned else 60), torch.arange(40)]).int().cuda()
    offsets = torch.tensor([0, 7, 20, 20, indices.numel() - 40, indices.numel() - 30, indices.numel()])
    offsets = torch.cat([offsets, offsets[-1:].repeat(2)]).int().cuda()
    torch.testing.assert_close(ours(indices, offsets), theirs(indices, offsets), rtol=1e-3, atol=1e-2)


@pytest.mark.fbgemm
@pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="needs FBGEMM")
@pytest.mark.parametrize("precision", ["FP32", "FP16"])
def test_fbgemms_module_for_training(precision: str) -> None:
    gpu = import_fbgemm()
    place = (gpu.EmbeddingLocation.DEVICE, gpu.ComputeDevice.CUDA)
    theirs = gpu.Training(
        [(50, 8, *place), (20, 128, *place)],
        feature_table_map=[0, 1, 0],
        weights_precision=getattr(gpu.SparseType, precision),
        device=torch.device("cuda"),
    )
    theirs.init_embedding_weights_uniform(-1, 1)
    ours = ek.optimize(theirs, strict=True)
    assert ours.storage.data_ptr() == theirs.weights_dev.data_ptr()
    indices = torch.randint(0, 20, (90,)).cuda()
    offsets = torch.arange(0, 91, 5).cuda()
    tables = [weight.float() for weight in theirs.split_embedding_weights()]
    with torch.no_grad():
        # Not by its own forward, of which some builds leave out the parts that train.
        wanted = [
            functional.embedding_bag(rows, tables[table], bags, mode="sum")
            for table, rows, bags in zip([0, 1, 0], indices.split(30), [offsets[:6]] * 3, strict=True)
        ]
        torch.testing.assert_close(ours(indices, offsets), torch.cat(wanted, 1), rtol=1e-3, atol=1e-3)
        assert list(ours.state_dict()) == list(theirs.state_dict())
