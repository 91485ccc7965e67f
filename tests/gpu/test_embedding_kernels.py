"""The package that is served, on a real GPU, against float64.

It must be built: `python -m kernel_wheel --in-place` (on any machine with a C++ compiler), whose folder
embedding_kernels/lib comes along.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.served import Given, assert_right, batch, expected, look_up_features, some_tables
from tests.served_package import _operators, ek

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
ROOT = Path(__file__).resolve().parents[2]
ROW_TYPES = ["float32", "float16", "bfloat16", "int8", "int4"]
MIXED = (
    (500, 4, "float32"),
    (3, 7, "float16"),
    (1, 33, "bfloat16"),
    (400, 5, "int4"),
    (200, 64, "int8"),
    (90, 128, "float32"),
    (70, 300, "float16"),
)


def on_gpu(tables: list[Given], **options: Any) -> ek.EmbeddingTables:
    return ek.EmbeddingTables(tables, **options).cuda()


def check(tables: list[Given], bags: int, longest: int, scale: float = 8, **options: Any) -> str:
    """Looks up and compares; the kernel that was launched last."""
    module = on_gpu(tables, **options)
    modes = options.get("modes", "sum")
    for dtype in (torch.int32, torch.int64):
        indices, offsets = batch(tables, bags, longest, dtype=dtype)
        output = module(indices.cuda(), offsets.cuda())
        assert_right(output, expected(tables, indices, offsets, modes), scale)
    assert module.bad_lookups() is None
    return _operators.last_kernel()


def test_this_gpu_is_ready() -> None:
    assert ek.check(), ek.check().why_not
    ek.warm_up(kernels=["fused", "vectorized"])


ROWS_AND_OUTPUTS = [
    (row_type, output)
    for row_type in ROW_TYPES
    for output in ("float32", "float16", "bfloat16")
    if (row_type, output) not in (("float16", "bfloat16"), ("bfloat16", "float16"))
]


@pytest.mark.parametrize(("row_type", "output"), ROWS_AND_OUTPUTS)
def test_each_kernel_for_each_type(row_type: str, output: str) -> None:
    options: dict[str, Any] = {"output_dtype": getattr(torch, output)}
    alike = some_tables(*[(300, 64, row_type)] * 3)
    assert "lookup_stream" in check(alike, 70, 12, **options)
    assert "lookup_tables" in check(alike, 20, 150, 30, **options)
    assert "lookup_tables" in check(alike, 20, 90, 30, modes="mean", **options)
    assert "lookup_tables" in check(alike, 20, 9, 30, modes="max", **options)
    unlike = some_tables((300, 64, row_type), (20, 32, row_type), (9, 128, row_type))
    assert "lookup_stream" in check(unlike, 30, 100, 30, **options)
    if row_type == "float32":
        many = 4 * torch.cuda.get_device_properties().multi_processor_count
        assert "lookup_large" in check(alike[:2], many, 90, 30, **options)


@pytest.mark.parametrize("dim", [136, 192, 256, 264, 512, 704])  # whole 16 bytes, in 16 bits too
@pytest.mark.parametrize("output", ["float32", "float16", "bfloat16"])
def test_wide_rows(output: str, dim: int) -> None:
    alike = some_tables(*[(300, dim, "float32")] * 3)
    options: dict[str, Any] = {"output_dtype": getattr(torch, output)}
    for bags, longest in ((1, 70), (2, 600), (33, 90), (1000, 120)):
        for modes in ("sum", "mean"):
            assert "lookup_wide" in check(alike, bags, longest, 30, modes=modes, **options)


@pytest.mark.parametrize("longest", [12, 150])
@pytest.mark.parametrize(("row_type", "output"), ROWS_AND_OUTPUTS)
def test_vectorized_for_each_type(row_type: str, output: str, longest: int) -> None:
    options: dict[str, Any] = {"output_dtype": getattr(torch, output), "kernel": "vectorized"}
    unlike = some_tables((300, 64, row_type), (20, 32, row_type), (9, 128, row_type), (70, 288, row_type))
    assert "lookup_tables" in check(unlike, 70, longest, 30, **options)
    assert "lookup_tables" in check(unlike, 20, longest, 30, modes=["mean", "sum", "mean", "max"], **options)
    odd = some_tables((30, 7, row_type), (20, 5, row_type))
    assert "lookup_tables" in check(odd, 20, longest, 30, **options)


def test_16_bit_rows_are_not_written_as_the_other_16_bits() -> None:
    module = on_gpu([torch.ones(3, 4).half()], output_dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="no kernel that writes this dtype"):
        module(torch.tensor([1]).cuda(), torch.tensor([0, 1]).cuda())


@pytest.mark.parametrize("longest", [0, 3, 40, 200])
def test_mixed_tables(longest: int) -> None:
    tables = some_tables(*MIXED)
    modes = ["sum", "mean", "max", "max", "mean", "sum", "mean"]
    for kernel in ("fused", "vectorized", ["fused", "vectorized"] * 3 + ["vectorized"]):
        check(tables, 33, longest, 30, modes=modes, kernel=kernel)
        check(tables, 33, longest, 30, kernel=kernel)
    check(tables[:1], 1, longest, 30)


@pytest.mark.parametrize(("bags_per_sm", "longest"), [(0, 9), (0, 90), (4, 90)])
@pytest.mark.parametrize("row_type", ["float32", "float16"])
def test_features_in_any_order(row_type: str, bags_per_sm: int, longest: int) -> None:
    module = on_gpu(some_tables(*[(300, 64, row_type)] * 3), output_dtype=torch.float32)
    bags = bags_per_sm * torch.cuda.get_device_properties().multi_processor_count or 40
    found, right = look_up_features(module, bags, longest)
    assert_right(found, right, 30)


def test_sample_weights_and_no_bags() -> None:
    tables = some_tables(*MIXED)
    module = on_gpu(tables)
    indices, offsets = batch(tables, 21, 30)
    weights = torch.rand(indices.numel())
    output = module(indices.cuda(), offsets.cuda(), weights.cuda())
    assert_right(output, expected(tables, indices, offsets, weights=weights), 30)
    nothing = module(torch.zeros(0, dtype=torch.int64).cuda(), torch.zeros(1, dtype=torch.int64).cuda())
    assert nothing.shape == (0, module.columns)


@pytest.mark.parametrize("longest", [5, 90])
@pytest.mark.parametrize("row_type", ROW_TYPES)
@pytest.mark.parametrize("kernel", ["fused", "vectorized"])
def test_wrong_row_numbers_and_offsets_are_survived_and_counted(
    kernel: str, row_type: str, longest: int
) -> None:
    tables = some_tables(*[(300, 64, row_type)] * 3)
    module = on_gpu(tables, output_dtype=torch.float32, kernel=kernel)
    bags = 4 * torch.cuda.get_device_properties().multi_processor_count
    indices, offsets = batch(tables, bags, longest)
    wrong = torch.randperm(indices.numel(), generator=torch.Generator().manual_seed(1))[:50]
    indices[wrong] = torch.tensor([-1, 300, 2**31 + 7, -(2**40), 2**62]).repeat(10)
    output = module(indices.cuda(), offsets.cuda())
    assert_right(output, expected(tables, indices, offsets), 30)
    bad = module.bad_lookups(forget=True)
    assert bad is not None
    assert (bad.rows, bad.offsets) == (50, 0)
    assert bad.index in indices[wrong].tolist()
    offsets[5], offsets[bags + 9], offsets[-1] = -3, 2**40, indices.numel() + 1
    output = module(indices.cuda(), offsets.cuda())
    assert_right(output, expected(tables, indices, offsets), 30)
    bad = module.bad_lookups()
    assert bad is not None
    assert bad.offsets >= 3
    indices, offsets = batch(tables, bags, longest)
    assert_right(module(indices.cuda(), offsets.cuda()), expected(tables, indices, offsets), 30)


def test_of_tables_called_one_by_one_the_wrong_one_is_told() -> None:
    module = on_gpu(some_tables(*MIXED))
    last = len(module) - 1
    module[last](torch.tensor([2**40, 1]).cuda(), torch.tensor([0, 1]).cuda())
    module[last](torch.tensor([1]).cuda(), torch.tensor([0, 9]).cuda())
    torch.cuda.synchronize()  # faults are read beside what runs
    bad = module.bad_lookups(forget=True)
    assert bad == ek.BadLookups("", rows=1, offsets=2, table=str(last), bag=0, index=2**40)
    torch.cuda.synchronize()
    assert module.bad_lookups() is None


def test_faults_are_read_beside_what_runs() -> None:
    module = on_gpu([torch.ones(3, 4)])
    module(torch.tensor([7]).cuda(), torch.tensor([0, 1]).cuda())
    torch.cuda.synchronize()
    torch.cuda._sleep(2**31)
    busy = torch.cuda.Event()
    busy.record()
    bad = module.bad_lookups()
    assert not busy.query()
    assert bad == ek.BadLookups("", rows=1, offsets=0, table="0", bag=0, index=7)
    torch.cuda.synchronize()


def test_a_captured_graph_sees_other_indices_and_updated_rows() -> None:
    tables = some_tables(*MIXED)
    module = on_gpu(tables)
    indices, offsets = (tensor.cuda() for tensor in batch(tables, 16, 9))
    room = torch.zeros(indices.numel() + 1000, dtype=torch.int64, device="cuda")
    room[: indices.numel()] = indices
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = module(room, offsets)
    for seed in (1, 2):
        new, ends = batch(tables, 16, 9, seed=seed)
        room[: new.numel()] = new.cuda()
        offsets.copy_(ends)
        graph.replay()
        assert_right(output, expected(tables, new, ends), 30)
    changed = [torch.full((500, 4), 3.0), *tables[1:]]
    module.update_rows(0, torch.arange(500), torch.full((500, 4), 3.0))
    graph.replay()
    assert_right(output, expected(changed, new, ends), 30)
    module.load_state_dict(ek.EmbeddingTables(tables).state_dict())
    graph.replay()
    assert_right(output, expected(tables, new, ends), 30)
    module.use_kernel("vectorized")
    assert_right(module(new.cuda(), ends.cuda()), expected(tables, new, ends), 30)
    graph.replay()
    assert_right(output, expected(tables, new, ends), 30)


CAPTURED_FIRST = """
import torch, embedding_kernels as ek
module = ek.EmbeddingTables([torch.ones(9, 4), torch.ones(9, 4)]).cuda()
indices, offsets = torch.arange(4).cuda(), torch.tensor([0, 2, 4]).cuda()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    output = module(indices, offsets)
graph.replay()
print(output.tolist())
"""
ASSERTED = """
import torch, embedding_kernels as ek
module = ek.EmbeddingTables([torch.ones(9, 4)], on_bad_index="assert").cuda()
module(torch.tensor([9]).cuda(), torch.tensor([0, 1]).cuda())
try:
    torch.cuda.synchronize()
except RuntimeError as error:
    print("assert" in str(error))
"""


@pytest.mark.parametrize(("code", "said"), [(CAPTURED_FIRST, f"{[[2.0] * 8]}\n"), (ASSERTED, "True\n")])
def test_in_a_process_of_its_own(code: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(said), done.stderr


def test_streams_and_threads() -> None:
    tables = some_tables(*[(5000, 64, "float32")] * 4, (3000, 20, "float16"), (900, 64, "int8"))
    module = on_gpu(tables)
    calls = [batch(tables, 60, 25, seed=seed) for seed in range(4)]
    wanted = [expected(tables, *call) for call in calls]
    given = [(indices.cuda(), offsets.cuda()) for indices, offsets in calls]
    torch.cuda.synchronize()
    found: list[list[Tensor]] = [[] for _ in calls]

    def work(number: int) -> None:
        streams = [torch.cuda.Stream() for _ in range(2)]
        for turn in range(40):
            with torch.no_grad(), torch.cuda.stream(streams[turn % 2]):
                found[number].append(module(*given[number]))
        for stream in streams:
            stream.synchronize()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs, right in zip(found, wanted, strict=True):
        assert len(outputs) == 40
        for output in outputs:
            assert_right(output, right, 30)


def test_no_update_is_seen_half() -> None:
    module = on_gpu([torch.zeros(4000, 256)])
    indices, offsets = torch.arange(4000).cuda(), torch.arange(4001).cuda()
    other = torch.cuda.Stream()
    rows = torch.arange(4000)
    torch.cuda.synchronize()
    seen = []
    for value in range(1, 20):
        with torch.no_grad(), torch.cuda.stream(other):
            seen.append(module(indices, offsets))
        new = torch.full((4000, 256), float(value))
        if value % 2:
            module.update_rows(0, rows, new, streams=[other])
        else:
            with ek.updating(other):
                module.load_state_dict({"0.weight": new})
    torch.cuda.synchronize()
    for value, output in enumerate(seen):
        assert (output == value).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of tensor cores that nobody asked for
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(mode: str) -> None:
    tables = some_tables(*MIXED)
    module = on_gpu(tables)
    compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(module, fullgraph=True, mode=mode)
    with torch.no_grad():
        for seed in range(4):
            indices, offsets = batch(tables, 16, 0 if seed == 3 else 9, seed=seed)
            assert_right(
                compiled(indices.cuda(), offsets.cuda()).clone(), expected(tables, indices, offsets), 30
            )


@pytest.mark.two_gpus
def test_another_gpu_than_the_current_one() -> None:
    tables = some_tables(*MIXED)
    module = ek.EmbeddingTables(tables).to("cuda:1")
    indices, offsets = batch(tables, 16, 9)
    for _ in range(2):
        output = module(indices.to("cuda:1"), offsets.to("cuda:1"))
        assert output.device == torch.device("cuda:1")
        assert_right(output, expected(tables, indices, offsets), 30)
    assert torch.cuda.current_device() == 0
