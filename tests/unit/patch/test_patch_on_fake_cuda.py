"""Whole lookups through the patched operator, on a pretended GPU: host memory, a small library for a driver.

Each test runs a program of its own, for the pretended backend cannot be taken out of a process again.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_entry import entry

from harness.patch import build
from harness.patch.manifest import LaunchShape, SpecialKernel

TESTS = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import ctypes, sys, threading
from pathlib import Path
import torch
sys.path.append({str(TESTS / "gpu")!r})
from harness import patch
from cases import assert_right, random_case
driver = ctypes.CDLL(sys.argv[1] + "/libcuda.so.1")  # found by this name when the patch looks for the driver
driver.fake_events.restype = ctypes.c_char_p
torch.ops.load_library(sys.argv[1] + "/device.so")
fake = torch.ops.fake_cuda
folder = Path(sys.argv[2])

def events():
    return driver.fake_events().decode().splitlines()

def run(op, weight, indices, offsets, mode=0, scales=None, last=False, padding=-1, device=0):
    given = [fake.on_gpu(tensor, device) for tensor in (weight, indices, offsets)]
    scales = None if scales is None else fake.on_gpu(scales, device)
    outputs = op(*given, False, mode, False, scales, last, padding)
    return [fake.on_cpu(output) for output in outputs]

forward = torch.ops.aten._embedding_bag.default
forward_only = torch.ops.aten._embedding_bag_forward_only.default
weight, indices, offsets = torch.randn(10, 4), torch.tensor([1, 2, 3]), torch.tensor([0, 2])
"""


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pretended driver and backend."""
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has a CUDA backend of its own")
    folder = tmp_path_factory.mktemp("fake_cuda")
    headers = Path(torch.__file__).resolve().parent / "include"
    libraries = headers.parent / "lib"
    compiler = ["c++", "-std=c++20", "-shared", "-fPIC"]
    sources = TESTS / "data" / "fake_cuda"
    contract = ["-I", str(build.contract_dir())]
    torch_headers = [
        "-isystem",
        str(headers),
        "-isystem",
        str(headers / "torch" / "csrc" / "api" / "include"),
    ]
    torch_libraries = [f"-L{libraries}", "-lc10", "-ltorch_cpu"]
    for name, source, options in (
        ("libcuda.so.1", "driver.cpp", [*contract, *torch_headers, "-Wl,-soname,libcuda.so.1"]),
        ("device.so", "device.cpp", [*torch_headers, *torch_libraries]),
    ):
        subprocess.run([*compiler, str(sources / source), "-o", str(folder / name), *options], check=True)
    return folder


def on_fake_cuda(libraries: Path, design: Path, code: str) -> str:
    """What the code prints; it must not fail, nor say anything on stderr."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, str(libraries), str(design)],
        env={**os.environ, "HARNESS_DESIGN": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_lookups_return_what_the_kernel_computed_in_all_four_tensors(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
for count, seed in enumerate(range(60), start=1):
    case = random_case(seed, torch.float32, (torch.int32, torch.int64)[seed % 2])
    offsets = case.offsets
    if offsets is None:
        offsets = torch.arange(0, case.indices.numel(), case.indices.size(1), dtype=case.indices.dtype)
    output, offset2bag, bag_size, max_indices = run(
        (forward, forward_only)[seed % 3 == 0], case.table("cpu"), case.indices.reshape(-1), offsets,
        {"sum": 0, "mean": 1}[case.mode],
        None if case.sample_weights is None else case.sample_weights.reshape(-1),
        case.include_last_offset, -1 if case.padding_idx is None else case.padding_idx,
    )
    assert_right(output, case)
    assert offset2bag.tolist() == [bag for bag, rows in enumerate(case.bags) for _ in rows]
    assert bag_size.shape == offsets.shape
    kept = [sum(row != case.padding_idx for row in rows) for rows in case.bags]
    assert bag_size.tolist()[: len(kept)] == kept
    assert max_indices.shape == (0,)
    assert {offset2bag.dtype, bag_size.dtype, max_indices.dtype} == {case.indices.dtype}
    assert (patch.calls()["design"], patch.calls()["stock"]) == (count, 0), patch.calls()
print(patch.calls()["kernel"], patch.calls()["arch"])
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "lookup_float32_int64_distance2 sm_90\n"


def test_the_launch_is_told_grid_block_and_the_current_stream_of_the_tables_device(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder, {"distance": 4})
run(forward, weight, indices, offsets)
fake.set_stream(5)
run(forward, weight, indices, offsets)
run(forward, weight, indices, offsets[:0])  # no bags: nothing to launch
run(forward, weight, indices.int(), offsets.int(), device=1)
assert fake.current_device() == 0
for line in events(): print(line)
"""
    shape = "grid 1024,1,1 block 32,8,1"
    assert on_fake_cuda(fake_cuda, make_design(), code).splitlines() == [
        "load stands for a cubin of sm_90",
        f"lookup_float32_int64_distance4 {shape} stream 0x1000",
        f"lookup_float32_int64_distance4 {shape} stream 0x1005",
        "load stands for a cubin of sm_90",  # the other device's
        f"lookup_float32_int32_distance4 {shape} stream 0x2005",
    ]


def test_a_new_thread_gets_a_context_and_modules_load_once(fake_cuda: Path, make_design: Any) -> None:
    code = """
patch.apply(folder)
results = []
work = lambda: results.append(run(forward, weight, indices, offsets)[0])
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 8 and all(torch.equal(result, results[0]) for result in results)
patch.remove()
patch.apply(folder)
run(forward, weight, indices, offsets)
print(sum(line.startswith("load") for line in events()))
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "1\n"


def test_hot_rows_are_prepared_before_every_nth_lookup_of_their_table_alone(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
operators = torch.ops.embedding_harness
table, other = fake.on_gpu(weight, 0), fake.on_gpu(weight.clone(), 0)
rows = torch.tensor([3, 1])
here = [fake.on_gpu(tensor, 0) for tensor in (rows, indices, offsets)]
operators.set_hot_rows(table, here[0], 3)
for _ in range(7):
    forward(table.detach(), *here[1:])
    forward(other, *here[1:])
for line in events():
    print(line.split()[0])
print(fake.streams_recorded())
operators.set_hot_rows(table, here[0], 0)
forward(table, *here[1:])
patch.prepare(table)
patch.set_hot_rows(table, None)
forward(table, *here[1:])
print(*events(), sep="\\n")
"""
    lookup, prepare = "lookup_float32_int64_distance2", "prepare_float32__"
    lines = on_fake_cuda(fake_cuda, make_design(), code).splitlines()
    pair = [lookup, lookup]
    assert lines[: 1 + 14 + 3] == ["load", *[prepare, *pair, *pair, *pair] * 2, prepare, *pair]
    assert lines[18] == "3"
    launched = "grid 1,1,1 block 256,1,1 stream 0x1000 3 1 bytes 16 stride 16"
    assert [line.partition(" ")[::2] for line in lines[20:21]] == [(prepare, launched)]
    assert [line.split()[0] for line in lines[19:]] == [lookup, prepare, lookup]


def test_hot_rows_of_a_freed_table_are_not_those_of_the_next_at_its_address(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
rows = torch.tensor([3, 1])
table = fake.on_gpu(weight, 0)
torch.ops.embedding_harness.set_hot_rows(table, fake.on_gpu(rows, 0), 1)
del table
again = fake.on_gpu(weight, 0)  # the same address, another table
here = [fake.on_gpu(tensor, 0) for tensor in (indices, offsets)]
forward(again, *here)
print(sum(line.startswith("prepare") for line in events()))
try:
    patch.prepare(again)
except RuntimeError as error:
    print(error)
"""
    said = "0\nNo hot rows are set for this table; call set_hot_rows first.\n"
    assert on_fake_cuda(fake_cuda, make_design(), code) == said


def test_a_gpu_or_driver_that_cannot_run_the_design_is_one_sentence(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
import os
patch.apply(folder)
for name, value in (
    ("FAKE_CAPABILITY", "75"), ("FAKE_CAPABILITY", "100"), ("FAKE_REFUSES", "1"), ("FAKE_LACKS_KERNELS", "1"),
):
    os.environ[name] = value
    try:
        run(forward, weight, indices, offsets)
    except RuntimeError as error:
        print(error)
    del os.environ[name]
os.environ["FAKE_CAPABILITY"] = "86"  # a cubin of sm_80 will do
run(forward, weight, indices, offsets)
print(patch.calls()["arch"])
"""
    design = make_design()
    refused = "The driver of CUDA 12.1 refuses design two_way as compiled for sm_90"
    neither = "Design two_way is compiled for sm_80, sm_90, none of which runs on this GPU"
    assert on_fake_cuda(fake_cuda, design, code).splitlines() == [
        f"{neither} (sm_75). Compile it for sm_75.",
        f"{neither} (sm_100). Compile it for sm_100.",
        f"{refused}: as the test asked (CUDA_ERROR_FAKE)."
        " Update the driver, or compile the design with an older toolchain.",
        f"{design}/sm_90.cubin: has no kernel prepare_float32__ (as the test asked (CUDA_ERROR_FAKE))."
        " Compile design two_way again.",
        "sm_80",
    ]


def test_l2_is_set_aside_and_given_back_through_the_driver(fake_cuda: Path, make_design: Any) -> None:
    code = """
patch.apply(folder)
operators = torch.ops.embedding_harness
print(operators.set_persisting_l2_bytes(0, 5000))
operators.reset_persisting_l2(0)
print(*events())
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "4096\nreset\n"


TABLES = f"""
sys.path.append({str(TESTS / "gpu")!r})
from table_cases import QuantisedTables, make, random_tables_case
from table_cases import assert_right as assert_tables_right
from dataclasses import replace

def on_gpu(case, device=0):
    move = lambda tensor: None if tensor is None else fake.on_gpu(tensor, device)
    weights = case.weights
    if isinstance(weights, QuantisedTables):
        parts = (tuple(map(move, part)) for part in (weights.data, weights.scale_bias))
        weights = QuantisedTables(weights.dtype, weights.dim, *parts)
    else:
        weights = list(map(move, weights))
    moved = replace(case, weights=weights, indices=move(case.indices), offsets=move(case.offsets),
                    sample_weights=move(case.sample_weights))
    return moved

def look_up(case, device=0):
    return fake.on_cpu(on_gpu(case, device).call())
"""


def test_all_tables_go_through_one_launch_of_the_right_instance(
    fake_cuda: Path, make_tables_design: Any
) -> None:
    code = """
patch.apply(folder)
for count, seed in enumerate(range(40), start=1):
    case = random_tables_case(seed)
    assert_tables_right(look_up(case), case)
    assert (patch.calls()["design"], patch.calls()["stock"]) == (count, 0), patch.calls()
for case in (
    dict(dim=16), dict(dim=15), dict(dim=16, mode="max"), dict(dim=16, apart=4), dict(dim=16, apart=1),
    dict(dim=16, weighted=True), dict(dim=32, dtype="int4"), dict(dim=16, dtype="int4"),
    dict(dim=16, dtype="int8", output_dtype="float32"),
    dict(dim=8, dtype="float16", index_dtype=torch.int32), dict(dim=4, dtype="float16"),
):
    case = make([[3, 2]], **case)
    assert_tables_right(look_up(case), case)
    print(patch.calls()["kernel"].removeprefix("lookup_tables_"))
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code).splitlines() == [
        "float32_float32_int64_plain",
        "float32_float32_int64_general",  # dim
        "float32_float32_int64_general",  # max
        "float32_float32_int64_plain",
        "float32_float32_int64_general",  # rows apart by an odd number
        "float32_float32_int64_general",  # weighted
        "int4_float16_int64_plain",
        "int4_float16_int64_general",  # rows of 8 bytes
        "int8_float32_int64_plain",
        "float16_float16_int32_plain",
        "float16_float16_int64_general",
    ]


GRIDS = [
    ({}, ["17,3,1", "1,3,1"]),
    ({"bags_per_block": 1, "columns_per_block": 8}, ["130,3,1", "2,3,1"]),
    ({"blocks": 7}, ["7,1,1", "7,1,1"]),
    ({"blocks_per_sm": 2, "bags_per_block": 1}, ["195,1,1", "3,1,1"]),
    ({"blocks_per_sm": 1, "bags_per_block": 1}, ["132,1,1", "3,1,1"]),
]


def test_the_grid_of_all_tables(fake_cuda: Path, make_tables_design: Any) -> None:
    usual = LaunchShape(32, 4, blocks=0, bags_per_block=4, columns_per_block=0, blocks_per_sm=0)
    shapes: list[dict[str, Any]] = [shape for shape, _ in GRIDS]
    for number, shape in enumerate(shapes):
        make_tables_design(f"shape_{number}", launch=dataclasses.replace(usual, **shape))
    code = """
fake.set_stream(5)
for shape in sorted(folder.glob("shape_*")):
    patch.apply(shape)
    for n_bags in (65, 1, 0):  # no bags: nothing to launch
        case = make([[1] * n_bags] * 3, dim=16)
        assert look_up(case).shape == (n_bags, 48)
for line in events():
    if line.startswith("lookup"): print(line)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design().parent, TABLES + code).splitlines() == [
        f"lookup_tables_float32_float32_int64_plain grid {grid} block 32,4,1 stream 0x1005"
        for _, grids in GRIDS
        for grid in grids
    ]


def test_plain_calls_of_some_shapes_get_a_special_kernel(fake_cuda: Path, make_tables_design: Any) -> None:
    folder = make_tables_design()
    usual = LaunchShape(
        threads_x=32, threads_y=4, blocks=0, bags_per_block=1, columns_per_block=0, blocks_per_sm=0
    )
    entries = [
        entry(folder, function, "sm_90", "float32", "int64", "float32", general)
        for function, general in (
            ("lookup_tables", False),
            ("lookup_tables", True),
            ("lookup_large", False),
            ("lookup_short", False),
        )
    ] + [entry(folder, "lookup_tables", "sm_90", "float16", "int64", "float16", False)]
    special = [
        SpecialKernel("lookup_large", dataclasses.replace(usual, blocks_per_sm=1), (32, 0), (4, 0)),
        SpecialKernel("lookup_short", dataclasses.replace(usual, rows_per_block=(32, 1024)), (0, 32), (0, 0)),
    ]
    make_tables_design(entries=entries, special=special)
    code = """
patch.apply(folder)
for n_bags, length, more in (
    (528, 32, {}), (527, 32, {}), (528, 31, {}), (528, 32, {"weighted": True}), (528, 31, {"dim": 6}),
    (600, 32, {"dtype": "float16"}), (3000, 2, {}), (40000, 1, {}), (2, 0, {}), (0, 0, {}),
    (600, 32, {"rows": [50, 1]}),
):
    lengths = [[length] * n_bags, [0 if more.get("rows") else length] * n_bags]
    case = make(lengths, **{"dim": 8, **more})
    if more.get("rows"):
        case.weights[1] = case.weights[1][:0]
    assert_tables_right(look_up(case), case)
print(*(line for line in events() if line.startswith("lookup")), sep="\\n")
"""
    grids = [
        ("large_float32_float32_int64_plain", "132,1,1"),
        ("tables_float32_float32_int64_plain", "132,2,1"),
        ("short_float32_float32_int64_plain", "264,2,1"),  # 32 rows to a block: two bags
        ("tables_float32_float32_int64_general", "132,2,1"),
        ("tables_float32_float32_int64_general", "132,2,1"),
        ("tables_float16_float16_int64_plain", "150,2,1"),
        ("short_float32_float32_int64_plain", "188,2,1"),  # 16 bags
        ("short_float32_float32_int64_plain", "460,2,1"),  # 132 multiprocessors hold 7 each: 87 bags
        ("short_float32_float32_int64_plain", "1,2,1"),
        ("tables_float32_float32_int64_plain", "150,2,1"),  # of a table without a row they are not told
    ]
    assert on_fake_cuda(fake_cuda, folder, TABLES + code).splitlines() == [
        f"lookup_{name} grid {grid} block 32,4,1 stream 0x1000" for name, grid in grids
    ]


def test_where_tables_lie_is_copied_once_per_device_and_set(fake_cuda: Path, make_tables_design: Any) -> None:
    code = """
patch.apply(folder)
case, other = make([[1, 2], [3, 0]]), make([[1]], seed=1)
events()
for _ in range(3):
    assert_tables_right(look_up(case), case)
    assert_tables_right(look_up(case, 1), case)
    assert_tables_right(look_up(other), other)
print(sorted(line for line in events() if not line.startswith(("load", "lookup"))))
try:
    mixed = on_gpu(make([[1], [1]]))
    mixed.weights[1] = fake.on_gpu(mixed.weights[1], 1)
    mixed.call()
except ValueError as error:
    print(error)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code).splitlines() == [
        str(["allocate 32", "allocate 64", "allocate 64"]),
        "embedding_bags takes tables on one device: table 1 is on cuda:1, table 0 on cuda:0.",
    ]


def test_sets_of_a_captured_graph_stay_and_of_the_others_a_bounded_number(
    fake_cuda: Path, make_tables_design: Any
) -> None:
    code = """
patch.apply(folder)
table = torch.randn(1000, 4)
indices, offsets = torch.tensor([0, 1]), torch.tensor([0, 2])

def look_up_rows_from(begin):
    here = [fake.on_gpu(tensor, 0) for tensor in (table[begin:], indices, offsets)]
    got = patch.embedding_bags(here[:1], *here[1:])
    torch.testing.assert_close(fake.on_cpu(got)[0], table[begin : begin + 2].sum(0))
    return [line for line in events() if not line.startswith(("lookup", "load"))]

assert look_up_rows_from(0) == ["allocate 32"]
driver.fake_capture(1)
assert look_up_rows_from(0) == []                 # known: from now on a graph holds it
assert look_up_rows_from(1) == ["allocate 32"]    # new within a capture
driver.fake_capture(0)
for begin in range(2, 258):
    assert look_up_rows_from(begin) == ["allocate 32"]
assert look_up_rows_from(2) == []
driver.fake_capture(1)                            # another thread captures: nothing can be waited for
assert look_up_rows_from(258) == ["allocate 32"]
driver.fake_capture(0)
said = look_up_rows_from(259)
assert said == ["synchronize", *["free"] * 256, "allocate 32"], said[:3]
for held in (0, 1, 258, 259):
    assert look_up_rows_from(held) == []
assert look_up_rows_from(2) == ["allocate 32"]
"""
    on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code)


def test_what_the_driver_refuses_of_all_tables_is_one_sentence(
    fake_cuda: Path, make_tables_design: Any
) -> None:
    code = """
import os
patch.apply(folder)
case = make([[1, 2]])
os.environ["FAKE_REFUSES_COPIES"] = "1"
try:
    look_up(case)
except RuntimeError as error:
    print(error)
del os.environ["FAKE_REFUSES_COPIES"]
assert_tables_right(look_up(case), case)
patch.remove()
driver.fake_capture(1)
try:
    look_up(case)
except RuntimeError as error:
    print(error)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code).splitlines() == [
        "CUDA error: as the test asked (CUDA_ERROR_FAKE) in cuMemcpyHtoDAsync.",
        "embedding_bags cannot be captured in a CUDA graph here, since no design that takes all tables is "
        "applied, and PyTorch's own kernels need the offsets on the host.",
    ]


def test_what_a_design_for_all_tables_does_not_compute_is_told(
    fake_cuda: Path, make_tables_design: Any
) -> None:
    limits = {
        "dtypes": ["float32", "int8"],
        "index_dtypes": ["int64"],
        "modes": ["sum"],
        "weighted": False,
        "max_dim": 32,
        "dim_multiple": 8,
    }
    code = """
patch.apply(folder)
driver.fake_capture(1)  # so that PyTorch's kernels, which are not here, are not asked
shifted = make([[1]], dtype="int8")
data = torch.zeros(101 * 16, dtype=torch.uint8)[8:].as_strided((100, 16), (16, 1))
shifted = replace(shifted, weights=replace(shifted.weights, data=(data,)))
for case in (
    make([[1]], dtype="float16"), make([[1]], index_dtype=torch.int32), make([[1]], mode="mean"),
    make([[1]], weighted=True), make([[1]], dim=40), make([[1]], dim=12), shifted,
    make([[1]], output_dtype="float16"), make([[1]] * 65536, rows=[1] * 65536, dim=8),
):
    try:
        look_up(case)
    except RuntimeError as error:
        print(patch.calls()["fallback"])
        assert patch.calls()["fallback"] in str(error)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(**limits), TABLES + code).splitlines() == [
        "the tables' dtype is not the design's",
        "the indices' dtype is not the design's",
        "the mode is not the design's",
        "the design takes no per-sample weights",
        "the tables have more columns than the design takes",
        "the design does not take this number of columns",
        "the rows of a quantised table do not begin at multiples of 16 bytes",
        "the output's dtype is not the design's",
        "more tables than one launch has room for",
    ]


def test_a_design_for_each_of_the_two_operators_at_once(
    fake_cuda: Path, make_design: Any, make_tables_design: Any
) -> None:
    code = f"""
patch.apply(folder)
patch.apply(Path({str(make_tables_design())!r}))
print(patch.active())
case = make([[1, 2]])
run(forward, weight, indices, offsets)
print(patch.calls()["kernel"])
assert_tables_right(look_up(case), case)
print(patch.calls()["kernel"], patch.calls()["design"])
"""
    assert on_fake_cuda(fake_cuda, make_design(), TABLES + code).splitlines() == [
        "two_way + every_table",
        "lookup_float32_int64_distance2",
        "lookup_tables_float32_float32_int64_plain 2",
    ]


def test_plain_calls_get_their_own_instance_and_inference_nothing_but_the_output(
    fake_cuda: Path, make_design: Any
) -> None:
    folder = make_design()
    entries = [
        entry(folder, "lookup", "sm_90", "float32", "int64", general=general) for general in (False, True)
    ]
    make_design(entries=entries, prepares=False, tunables={}, output_only=True)
    code = """
patch.apply(folder)
wide = torch.randn(10, 8)
for table, scales, padding in (
    (weight, None, -1), (wide, None, -1), (wide, None, 0), (wide, torch.ones(3), -1), (wide[:, :3], None, -1),
    (wide[:, :4], None, -1), (wide[:, 2:6], None, -1), (wide.t().contiguous().t(), None, -1),
):
    for op in (forward, forward_only):
        outputs = run(op, table, indices, offsets, scales=scales, padding=padding)
        torch.testing.assert_close(outputs[0], torch.stack([table[1:3].sum(0), table[3]]))
        served = "plain" if patch.calls()["kernel"].endswith("plain") else "general"
        print(served, [len(output) for output in outputs])
here = [fake.on_gpu(tensor, 0) for tensor in (indices, wide, offsets)]
module = torch.nn.EmbeddingBag(10, 8, mode="mean", _weight=here[1]).requires_grad_(False)
torch.testing.assert_close(fake.on_cpu(module(here[0], here[2])), torch.stack([wide[1:3].mean(0), wide[3]]))
function = torch.nn.functional.embedding_bag(*here, mode="sum")
torch.testing.assert_close(fake.on_cpu(function), torch.stack([wide[1:3].sum(0), wide[3]]))
assert patch.calls()["design"] == 18, patch.calls()
"""
    with_both, without = "[2, 3, 2, 0]", "[2, 0, 0, 0]"
    served = ["plain", "plain", *["general"] * 3, "plain", "general", "general"]
    assert on_fake_cuda(fake_cuda, folder, code).splitlines() == [
        f"{name} {sizes}" for name in served for sizes in (with_both, without)
    ]
