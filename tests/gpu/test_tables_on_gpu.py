"""Every design that takes all tables, on a real GPU, against float64: `embedding_bags` in one launch."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import patch
from harness.patch import manifest
from tests.gpu.cases import TIMES, assert_stopped, at_once
from tests.gpu.table_cases import ROWS, USUAL, TablesCase, assert_right, make, random_tables_case

pytestmark = pytest.mark.gpu

DIMS = [
    4,
    5,
    12,
    30,
    31,
    32,
    48,
    63,
    64,
    96,
    100,
    128,
    130,
    160,
    200,
    256,
    257,
    500,
    512,
    1000,
    1024,
    2047,
    2048,
]


def ran_design(calls: int) -> None:
    ran = patch.calls()
    assert (ran["design"], ran["stock"], ran["fallback"]) == (calls, 0, "")


def check(case: TablesCase) -> None:
    assert_right(case.on("cuda").call(), case)


@pytest.mark.parametrize("dtype", ROWS)
def test_every_kind_of_call_is_right(for_all_tables: Path, dtype: str) -> None:
    patch.apply(for_all_tables)
    for count, seed in enumerate(range(40), start=1):
        check(random_tables_case(seed, dtype=dtype, output_dtype=(USUAL[dtype], "float32")[seed % 2]))
        ran_design(count)


def test_every_compiled_tunable_is_right(for_all_tables: Path) -> None:
    found = manifest.read(for_all_tables)
    for name in found.tunables:
        for value in sorted({e.tunables[name] for e in found.entries if name in e.tunables}):
            patch.apply(for_all_tables, {name: value})
            for seed in range(40):
                check(random_tables_case(seed))
            ran_design(40)


@pytest.mark.parametrize("dtype", ROWS)
@pytest.mark.parametrize("dim", DIMS)
def test_any_number_of_columns(for_all_tables: Path, dtype: str, dim: int) -> None:
    patch.apply(for_all_tables)
    rng = random.Random(dim)
    for mode, weighted in (("sum", False), ("mean", False), ("sum", True), ("max", False)):
        lengths = [[rng.choice([0, 1, 3, 33, 70]) for _ in range(9)] for _ in range(3)]
        check(make(lengths, seed=dim, rows=[60, 7, 300], dim=dim, dtype=dtype, mode=mode, weighted=weighted))
    ran_design(4)


@pytest.mark.parametrize("dtype", ROWS)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 31, 64])
def test_small_batches(for_all_tables: Path, dtype: str, batch: int) -> None:
    patch.apply(for_all_tables)
    for length, index_dtype in ((1, torch.int32), (20, torch.int64), (150, torch.int32), (500, torch.int64)):
        check(make([[length] * batch] * 4, seed=length, dim=128, dtype=dtype, index_dtype=index_dtype))
    ran_design(4)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_bags_from_none_to_ten_thousand_rows(for_all_tables: Path, dtype: str, mode: str) -> None:
    patch.apply(for_all_tables)
    zipf = np.minimum(np.random.default_rng(0).zipf(1.3, (3, 200)) - 1, 10_000).tolist()
    zipf[1][7] = 10_000
    for lengths in (zipf, [[10_000, 0, 1, 0]], [[0] * 50, [0] * 50], [[127, 128, 129, 0, 31, 32, 33]] * 2):
        check(make(lengths, rows=[5000] * len(lengths), dim=64, dtype=dtype, mode=mode))
    ran_design(4)


def test_many_tables_of_different_sizes(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    rows = [1 + 37 * n % 1009 for n in range(250)]
    check(make([[n % 5, 2] for n in range(250)], rows=rows, dim=32))
    ran_design(1)


def test_short_bags_beside_long_ones(for_all_tables: Path) -> None:
    """Where bags are short on average a kernel may deal with them otherwise; the long ones are among them."""
    patch.apply(for_all_tables)
    for long in (100, 128, 129, 1000, 4000):
        for dtype in ROWS:
            lengths = [[2] * 1000, [1] * 999 + [long], [long] + [0] * 999]
            check(make(lengths, rows=[1000] * 3, dim=128, dtype=dtype, mode="mean"))


@pytest.mark.parametrize("dim", [16, 20, 64, 128, 160, 256, 512])
@pytest.mark.parametrize("batch", [528, 700, 2048, 2150, 4300])
def test_large_batches(for_all_tables: Path, batch: int, dim: int) -> None:
    """Where bags are many and not short a kernel may deal with them otherwise, in any number of columns."""
    patch.apply(for_all_tables)
    rng = random.Random(batch + dim)
    ragged = [[rng.choice([0, 1, 60, 90, 255, 256, 257]) for _ in range(batch)] for _ in range(2)]
    ragged[0][batch // 3], ragged[1][-1], ragged[0][0] = 700, 2000, 12_000
    rows = [5000, 400]
    for lengths, index_dtype, mode in (
        (ragged, torch.int64, "mean"),
        ([[40] * batch] * 2, torch.int32, "sum"),
    ):
        check(make(lengths, seed=dim, rows=rows, dim=dim, index_dtype=index_dtype, mode=mode))
    ran_design(2)


@pytest.mark.parametrize("dim", [16, 64, 128, 256])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_large_batches_padded_with_one_row(for_all_tables: Path, dtype: str, dim: int) -> None:
    patch.apply(for_all_tables)
    rng = random.Random(dim)
    lengths = [[rng.choice([31, 32, 33, 64, 150, 300]) for _ in range(700)] for _ in range(2)]
    case = make(lengths, seed=dim, rows=[5000, 400], dim=dim, dtype=dtype, mode="mean")
    begin = 0
    for length in (length for table in lengths for length in table):
        case.indices[begin + rng.randrange(length) : begin + length] = rng.choice([0, 7, 399])
        begin += length
    check(case)
    ran_design(1)


def test_a_large_batch_is_the_same_every_time(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    case = make([[150] * 2048] * 4, rows=[3000] * 4, dim=128).on("cuda")
    first = case.call()
    assert all(torch.equal(case.call(), first) for _ in range(20))


@pytest.mark.parametrize("position", [0, 77, 1_000, 56_319])
@pytest.mark.parametrize("value", [-1, 5000, 2**31 - 1])
def test_a_row_outside_its_table_in_a_large_batch_is_an_error(
    for_all_tables: Path, position: int, value: int
) -> None:
    result = python(LARGE, for_all_tables, ROOT, position, value)
    assert result.stdout == "launched\n", result.stderr
    assert_stopped(result.stderr)


def test_what_the_design_does_not_compute_pytorch_does(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    check(make([[2, 0], [30, 5]], dtype="float16", output_dtype="bfloat16"))
    ran = patch.calls()
    assert (ran["design"], ran["stock"]) == (0, 1)
    assert ran["fallback"] == "the output's dtype is not the design's"
    patch.remove()
    for seed in range(30):
        check(random_tables_case(seed))
    assert patch.calls()["fallback"] == "no design that takes all tables is applied"


def test_it_runs_on_the_current_stream(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    case = make([[20] * 200] * 3, dim=128)
    there = case.on("cuda")
    there.call()  # the kernel is loaded before the race below
    indices = there.indices.clone()
    there.indices.zero_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # a lookup on another stream would overtake this and find zeros
        there.indices.copy_(indices)
        output = there.call()
    stream.synchronize()
    assert_right(output, case)


def test_threads_look_up_at_once(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    cases = [make([[5, 0, 70] * 40] * (1 + seed), seed=seed, dim=64) for seed in range(4)]
    # New tables every time: sets are made and forgotten meanwhile.
    at_once(cases, check)
    ran_design(4 * TIMES)


def test_more_sets_of_tables_than_are_kept(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    table = torch.arange(4000.0, device="cuda").reshape(1000, 4)
    indices, offsets = torch.tensor([0, 1], device="cuda"), torch.tensor([0, 2], device="cuda")
    outputs = [patch.embedding_bags([table[begin:]], indices, offsets) for begin in range(600)]
    expected = torch.stack([table[begin : begin + 2].sum(0) for begin in range(600)])
    assert torch.equal(torch.cat(outputs), expected)


@pytest.mark.two_gpus
def test_threads_look_up_on_two_gpus_at_once(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    cases = [(make([[5, 0, 70] * 40] * (1 + n), seed=n, dim=64), f"cuda:{n % 2}") for n in range(4)]
    at_once(cases, lambda case: assert_right(case[0].on(case[1]).call(), case[0]))
    ran_design(4 * TIMES)


@pytest.mark.two_gpus
def test_tables_of_two_gpus_are_no_one_call(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    tables = [torch.zeros(4, 8, device=device) for device in ("cuda:0", "cuda:1")]
    indices, offsets = torch.tensor([1, 2], device="cuda:0"), torch.tensor([0, 1, 2], device="cuda:0")
    with pytest.raises((ValueError, RuntimeError), match="device"):
        patch.embedding_bags(tables, indices, offsets)


@pytest.mark.two_gpus
def test_a_lookup_on_another_gpu_than_the_current_one(for_all_tables: Path) -> None:
    patch.apply(for_all_tables)
    case = make([[3, 50], [0, 9]], dim=32)
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        assert_right(case.on(device).call(), case)
    assert torch.cuda.current_device() == 0
    ran_design(3)


def test_both_kinds_of_design_at_once(for_all_tables: Path, any_compiled: Path) -> None:
    patch.apply(any_compiled)
    patch.apply(for_all_tables)
    case = make([[3, 50], [0, 9]], dim=32)
    check(case)
    weight = torch.randn(10, 32, device="cuda")
    indices, offsets = torch.tensor([1, 2, 3], device="cuda"), torch.tensor([0, 2], device="cuda")
    torch.nn.functional.embedding_bag(indices, weight, offsets)
    ran_design(2)


def test_modules_quantise_and_agree(for_all_tables: Path) -> None:
    torch.manual_seed(0)
    bags = [torch.nn.EmbeddingBag(rows, 64, mode="mean", device="cuda") for rows in (300, 40)]
    indices = torch.randint(40, (600,), device="cuda")
    offsets = torch.arange(0, 601, 3, device="cuda")
    joint = patch.EmbeddingBags(bags)
    on_cpu = patch.EmbeddingBags([bag.weight.detach().cpu() for bag in bags], mode="mean")
    expected = on_cpu(indices.cpu(), offsets.cpu())
    patch.apply(for_all_tables)
    with torch.inference_mode():
        torch.testing.assert_close(joint(indices, offsets).cpu(), expected)
        for dtype in ("int8", "int4"):
            here, there = joint.quantise(dtype), on_cpu.quantise(dtype).cuda()
            got = here(indices, offsets)
            torch.testing.assert_close(got, there(indices, offsets))
            torch.testing.assert_close(
                got.float(), joint(indices, offsets), rtol=0, atol=1.0 if dtype == "int4" else 0.05
            )
    ran_design(7)


PROGRAM = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from harness import patch
patch.apply(Path(sys.argv[1]))
tables = [(torch.arange(rows * 96.0).reshape(rows, 96) % 251).cuda() for rows in (1000, 50)]
offsets = torch.arange(0, 1201, 6, device="cuda")
"""
CAPTURE = """
indices = torch.zeros(1200, dtype=torch.int64, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    output = patch.embedding_bags(tables, indices, offsets)
assert patch.calls()["design"] == 1, patch.calls()
for begin in range(700):  # more sets of tables than are kept
    patch.embedding_bags([tables[0][begin:]], indices, offsets)

def replayed_right(seed):
    torch.manual_seed(seed)
    rows = torch.cat([torch.randint(1000, (600,)), torch.randint(50, (600,))])
    indices.copy_(rows)
    graph.replay()
    parts = [table.cpu()[part].reshape(100, 6, 96).sum(1) for table, part in zip(tables, rows.split(600))]
    return torch.equal(output.cpu(), torch.cat(parts, dim=1))

assert all(replayed_right(seed) for seed in range(5))
patch.remove()
assert replayed_right(5), "after remove"
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        patch.embedding_bags(tables, indices, offsets)
except RuntimeError as error:
    print(error)
"""
LARGE = """
tables = [torch.zeros(5000, 128, device="cuda")]
indices = torch.zeros(704 * 80, dtype=torch.int64, device="cuda")
indices[int(sys.argv[3])] = int(sys.argv[4])
patch.embedding_bags(tables, indices, torch.arange(0, 704 * 80 + 1, 80, device="cuda"))
print("launched", flush=True)
torch.cuda.synchronize()
print("not noticed")
"""
WRONG = """
indices = torch.zeros(1200, dtype=torch.int64, device="cuda")
{"indices": indices, "offsets": offsets}[sys.argv[3]][int(sys.argv[4])] = int(sys.argv[5])
patch.embedding_bags(tables, indices, offsets)
assert patch.calls()["design"] == 1, patch.calls()
print("launched", flush=True)
torch.cuda.synchronize()
print("not noticed")
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    environment = {**os.environ, "HARNESS_DESIGN": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


ROOT = Path(patch.__file__).parents[2]


def test_first_use_inside_a_capture_and_replay_with_other_indices(for_all_tables: Path) -> None:
    result = python(CAPTURE, for_all_tables, ROOT)
    assert result.stdout.startswith("embedding_bags cannot be captured in a CUDA graph here"), result.stderr


@pytest.mark.parametrize(
    ("what", "position", "value"),
    [
        ("indices", 0, 1000),
        ("indices", 599, -1),
        ("indices", 600, 50),
        ("indices", 1199, 2**40),
        ("offsets", 50, -1),
        ("offsets", 50, 5000),
        ("offsets", 200, 1201),
    ],
)
def test_rows_and_offsets_that_lead_outside_are_an_error(
    for_all_tables: Path, what: str, position: int, value: int
) -> None:
    result = python(WRONG, for_all_tables, ROOT, what, position, value)
    assert result.stdout == "launched\n", result.stderr
    assert_stopped(result.stderr)
