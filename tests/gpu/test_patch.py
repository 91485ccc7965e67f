"""Every design in PyTorch's place, on a real GPU, against float64 and against PyTorch's own kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import patch
from harness.patch import manifest
from tests.gpu.cases import (
    TIMES,
    Case,
    assert_right,
    assert_stopped,
    at_once,
    ran_design,
    random_case,
    simple_case,
)

pytestmark = pytest.mark.gpu

SEEDS = range(12)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INDEX_DTYPES = [torch.int32, torch.int64]
FORWARD_ONLY = torch.ops.aten._embedding_bag_forward_only.default
ENTRIES = ("aten::_embedding_bag", "aten::_embedding_bag_forward_only")


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_is_right(per_table: Path, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    if str(dtype).removeprefix("torch.") not in manifest.read(per_table).dtypes:
        pytest.skip("this design does not take this dtype")
    patch.apply(per_table)
    for count, seed in enumerate(SEEDS, start=1):
        case = random_case(seed, dtype, index_dtype)
        assert_right(case.call("cuda"), case)
        ran_design(count)


def test_every_compiled_tunable_is_right(per_table: Path) -> None:
    found = manifest.read(per_table)
    for name in found.tunables:
        for value in sorted({e.tunables[name] for e in found.entries if name in e.tunables}):
            patch.apply(per_table, {name: value})
            for seed in SEEDS:
                case = random_case(seed, torch.float32, torch.int64)
                assert_right(case.call("cuda"), case)
            assert patch.calls()["kernel"] in {
                e.symbol for e in found.entries if e.tunables.get(name) == value
            }


def test_fast_calls_run_the_instance_made_for_them(per_table: Path) -> None:
    found = manifest.read(per_table)
    generic = {entry.symbol: entry.generic for entry in found.entries}
    if all(generic.values()):
        pytest.skip("this design has one instance for all calls")
    patch.apply(per_table)
    torch.manual_seed(0)
    indices, offsets = torch.randint(500, (900,)), torch.arange(0, 900, 9)
    for dim, padding_idx, fast in (
        (128, None, True),
        (4, None, True),
        (256, None, True),
        (6, None, False),
        (64, 3, False),
    ):
        weight = torch.randn(500, dim)
        bags = indices.reshape(100, 9).tolist()
        case = Case(weight, indices, offsets, bags, "mean", None, False, padding_idx, "rows")
        assert_right(case.call("cuda"), case)
        assert generic[patch.calls()["kernel"]] is not fast, (dim, padding_idx)


def operator(case: Case, op: Any) -> tuple[torch.Tensor, ...]:
    """All four tensors of the operator itself."""
    indices = case.indices.cuda()
    offsets = case.offsets
    if offsets is None:
        offsets = torch.arange(0, case.indices.numel(), case.indices.size(1), dtype=case.indices.dtype)
    scales = None if case.sample_weights is None else case.sample_weights.reshape(-1).cuda()
    padding = -1 if case.padding_idx is None else case.padding_idx
    mode = {"sum": 0, "mean": 1}[case.mode]
    table = case.table("cuda")
    outputs: tuple[torch.Tensor, ...] = op(
        table,
        indices.reshape(-1),
        offsets.cuda(),
        False,
        mode,
        False,
        scales,
        case.include_last_offset,
        padding,
    )
    return outputs


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES, ids=str)
@pytest.mark.parametrize(
    "op",
    [torch.ops.aten._embedding_bag.default, FORWARD_ONLY],
    ids=["forward", "forward_only"],
)
def test_all_four_tensors_are_those_of_pytorch(per_table: Path, op: Any, index_dtype: torch.dtype) -> None:
    cases = [random_case(seed, torch.float32, index_dtype) for seed in SEEDS]
    stock = [operator(case, op) for case in cases]
    patch.apply(per_table)
    left_out = manifest.read(per_table).output_only and op is FORWARD_ONLY
    for case, theirs in zip(cases, stock, strict=True):
        ours = operator(case, op)
        if left_out:
            assert [len(tensor) for tensor in ours[1:]] == [0, 0, 0]
            assert_right(ours[0], case)
            continue
        for a, b in zip(ours, theirs, strict=True):
            assert (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
        assert_right(ours[0], case)
        assert torch.equal(ours[1], theirs[1])
        # With include_last_offset PyTorch's bag_size has an element more than there are bags, never written.
        assert torch.equal(ours[2][: len(case.bags)], theirs[2][: len(case.bags)])
    ran_design(len(cases))


@pytest.mark.parametrize(
    ("index_dtype", "sparse", "by_frequency"),
    [
        (torch.int64, False, False),
        (torch.int64, False, True),
        (torch.int64, True, False),
        (torch.int32, False, False),
    ],
)
def test_gradients_are_those_of_pytorch(
    per_table: Path, index_dtype: torch.dtype, sparse: bool, by_frequency: bool
) -> None:
    def gradients(case: Case) -> list[torch.Tensor]:
        weight = case.weight.cuda().requires_grad_()
        scales = None if case.sample_weights is None else case.sample_weights.cuda().requires_grad_()
        result = torch.nn.functional.embedding_bag(
            case.indices.cuda(),
            weight,
            None if case.offsets is None else case.offsets.cuda(),
            mode=case.mode,
            per_sample_weights=scales,
            include_last_offset=case.include_last_offset,
            padding_idx=case.padding_idx,
            sparse=sparse,
            scale_grad_by_freq=by_frequency,
        )
        torch.manual_seed(0)
        result.backward(torch.randn(result.shape).cuda())
        wanted = [tensor for tensor in (weight, scales) if tensor is not None]
        return [tensor.grad.to_dense() for tensor in wanted if tensor.grad is not None]

    cases = [random_case(seed, torch.float32, index_dtype) for seed in range(20)]
    cases = [case for case in cases if case.indices.numel()]
    stock = [gradients(case) for case in cases]
    patch.apply(per_table)
    for case, theirs in zip(cases, stock, strict=True):
        ours = gradients(case)
        assert len(ours) == 1 + (case.sample_weights is not None)
        for a, b in zip(ours, theirs, strict=True):
            # Adding up gradients of a row that occurs often is done in no fixed order, by PyTorch too.
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)
    ran_design(len(cases))


def test_indices_and_offsets_of_two_types(any_compiled: Path) -> None:
    def call() -> tuple[torch.Tensor, ...]:
        weight = torch.arange(40.0, device="cuda").reshape(10, 4)
        offsets = torch.tensor([0, 2], device="cuda", dtype=torch.int32)
        return torch.embedding_bag(weight, torch.tensor([1, 2, 3], device="cuda"), offsets)

    theirs = call()
    patch.apply(any_compiled)
    ours = call()
    ran_design(1)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_it_runs_on_the_current_stream(per_table: Path) -> None:
    patch.apply(per_table)
    case = simple_case()
    weight = case.table("cuda")
    indices = torch.zeros_like(case.indices).cuda()
    case.call("cuda", weight)  # the kernel is loaded before the race below
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        new = case.indices.cuda()
        assert case.offsets is not None
        offsets = case.offsets.cuda()
        scales = None if case.sample_weights is None else case.sample_weights.cuda()
        torch.cuda._sleep(200_000_000)  # a lookup on another stream would overtake this and find zeros
        indices.copy_(new)
        output = torch.nn.functional.embedding_bag(
            indices,
            weight,
            offsets,
            mode=case.mode,
            per_sample_weights=scales,
            include_last_offset=case.include_last_offset,
            padding_idx=case.padding_idx,
        )
    stream.synchronize()
    assert_right(output, case)


def test_threads_look_up_at_once(per_table: Path) -> None:
    patch.apply(per_table)
    cases = [simple_case(seed) for seed in range(4)]
    at_once(cases, lambda case: assert_right(case.call("cuda"), case))
    ran_design(4 * TIMES)


CAPTURE = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from harness import patch
weight = torch.arange(1000 * 96, dtype=torch.float32).reshape(1000, 96).cuda() % 251
indices = torch.zeros(600, dtype=torch.int64, device="cuda")
offsets = torch.arange(0, 600, 6, device="cuda")
patch.apply(Path(sys.argv[1]))
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    output = torch.nn.functional.embedding_bag(indices, weight, offsets, mode="sum")
assert patch.calls()["design"] == 1, patch.calls()
for seed in range(5):
    torch.manual_seed(seed)
    rows = torch.randint(1000, (600,))
    indices.copy_(rows)
    graph.replay()
    expected = weight.cpu()[rows].reshape(100, 6, 96).sum(1)
    assert torch.equal(output.cpu(), expected), seed
patch.remove()
indices.copy_(rows.flip(0))
graph.replay()
assert torch.equal(output.cpu(), weight.cpu()[rows.flip(0)].reshape(100, 6, 96).sum(1)), "after remove"
print("done")
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "HARNESS_DESIGN": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_first_use_inside_a_capture_and_replay_with_other_indices(per_table: Path) -> None:
    result = python(CAPTURE, str(per_table), str(Path(patch.__file__).parents[2]))
    assert result.stdout == "done\n", result.stderr


OUT_OF_RANGE = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from harness import patch
patch.apply(Path(sys.argv[1]))
weight = torch.ones(10, 32, device="cuda")
indices = torch.tensor([1, int(sys.argv[3]), 2], device="cuda")
torch.embedding_bag(weight, indices, torch.tensor([0], device="cuda"))
assert patch.calls()["design"] == 1, patch.calls()
print("launched", flush=True)
torch.cuda.synchronize()
print("not noticed")
"""


def assert_noticed(per_table: Path, index: int) -> None:
    result = python(OUT_OF_RANGE, str(per_table), str(Path(patch.__file__).parents[2]), str(index))
    assert result.stdout == "launched\n", result.stderr
    assert_stopped(result.stderr)


def test_a_row_beyond_the_table_is_an_error(per_table: Path) -> None:
    assert_noticed(per_table, 10)


def test_a_negative_row_is_an_error(any_compiled: Path) -> None:
    assert_noticed(any_compiled, -1)


@pytest.mark.parametrize(
    ("dtype", "mode", "stride", "why"),
    [
        (torch.float32, 2, 1, "mode is max"),
        (torch.float64, 0, 1, "the table's dtype is not the design's"),
        (torch.bfloat16, 1, 1, "the table's dtype is not the design's"),
        (torch.float32, 0, 2, "indices or offsets are not contiguous"),
    ],
)
def test_pytorchs_kernel_does_what_the_design_does_not(
    any_compiled: Path, dtype: torch.dtype, mode: int, stride: int, why: str
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(100, 32, device="cuda").to(dtype)
    indices = torch.randint(100, (60 * stride,), device="cuda")[::stride]
    offsets = torch.tensor([0, 0, 7, 30], device="cuda")

    def call() -> list[torch.Tensor]:
        ops = (torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)
        return [tensor for op in ops for tensor in op(weight, indices, offsets, False, mode)]

    theirs = call()
    patch.apply(any_compiled)
    assert all(torch.equal(a, b) for a, b in zip(call(), theirs, strict=True))
    assert (patch.calls()["design"], patch.calls()["stock"]) == (0, 2)
    assert patch.calls()["fallback"] == why


def test_what_pytorch_refuses_it_still_refuses_in_its_own_words(any_compiled: Path) -> None:
    weight, indices = torch.ones(10, 4, device="cuda"), torch.tensor([1, 2], device="cuda")
    wrong: list[tuple[torch.Tensor, ...]] = [
        (weight, indices.float(), indices[:1]),
        (weight, indices.cpu(), indices[:1]),
        (weight, indices, indices[0]),
        (weight[0], indices, indices[:1]),
    ]

    def said() -> list[str]:
        sentences = []
        for arguments in wrong:
            with pytest.raises((RuntimeError, IndexError)) as caught:
                torch.ops.aten._embedding_bag(*arguments)
            sentences.append(str(caught.value))
        return sentences

    theirs = said()
    patch.apply(any_compiled)
    assert said() == theirs


def test_remove_gives_back_pytorch_to_the_bit(per_table: Path) -> None:
    def kernels() -> list[str]:
        return [torch._C._dispatch_dump(name) + torch._C._dispatch_dump_table(name) for name in ENTRIES]

    case = simple_case()
    theirs, before = case.call("cuda"), kernels()
    patch.apply(per_table)
    case.call("cuda")
    ran_design(1)
    patch.remove()
    assert torch.equal(case.call("cuda"), theirs)
    assert kernels() == before
    patch.apply(per_table)
    assert_right(case.call("cuda"), case)
    ran_design(1)


def test_a_wrong_kernel_is_noticed(wrong: Path) -> None:
    patch.apply(wrong)
    case = simple_case()
    output = case.call("cuda")
    ran_design(1)
    with pytest.raises(AssertionError, match="should be"):
        assert_right(output, case)


@pytest.mark.two_gpus
def test_a_lookup_on_another_gpu_than_the_current_one(per_table: Path) -> None:
    patch.apply(per_table)
    case = simple_case()
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        output = case.call(device)
        assert str(output.device) == device
        assert_right(output, case)
    assert torch.cuda.current_device() == 0
    ran_design(3)


@pytest.mark.two_gpus
def test_threads_look_up_on_two_gpus_at_once(per_table: Path) -> None:
    patch.apply(per_table)
    cases = [(simple_case(seed), f"cuda:{seed % 2}") for seed in range(4)]
    at_once(cases, lambda case: assert_right(case[0].call(case[1]), case[0]))
    ran_design(4 * TIMES)
