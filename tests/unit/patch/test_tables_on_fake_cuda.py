"""Lookups of all tables at once through the operator for them, on a pretended GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from harness.patch.manifest import LaunchShape, SpecialKernel
from tests.unit.patch.fake_gpu import on_fake_cuda
from tests.unit.patch.pretended_entry import entries

TABLES = """
from tests.gpu.table_cases import QuantisedTables, make, random_tables_case
from tests.gpu.table_cases import assert_right as assert_tables_right
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
    print(patch.calls()["kernel"].removeprefix("fused_lookup_tables_"))
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code).splitlines() == [
        "float32_float32_int64_fast",
        "float32_float32_int64_generic",  # dim
        "float32_float32_int64_generic",  # max
        "float32_float32_int64_fast",
        "float32_float32_int64_generic",  # rows apart by an odd number
        "float32_float32_int64_generic",  # weighted
        "int4_float16_int64_fast",
        "int4_float16_int64_generic",  # rows of 8 bytes
        "int8_float32_int64_fast",
        "float16_float16_int32_fast",
        "float16_float16_int64_generic",
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
        launch = dataclasses.replace(usual, **shape)
        make_tables_design(f"shape_{number}", kernels_of="slow_tables", launch=launch)
    code = """
fake.set_stream(5)
for shape in sorted(folder.glob("shape_*")):
    patch.apply(shape)
    for n_bags in (65, 1, 0):  # no bags: nothing to launch
        case = make([[1] * n_bags] * 3, dim=16)
        assert look_up(case).shape == (n_bags, 48)  # what is in it comes from a grid that is not the kernel's
for line in launches(): print(line)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design().parent, TABLES + code).splitlines() == [
        f"slow_tables_lookup_tables_float32_float32_int64_fast grid {grid} block 32,4,1 stream 0x1005"
        for _, grids in GRIDS
        for grid in grids
    ]


def test_fast_calls_of_some_shapes_get_a_special_kernel(fake_cuda: Path, make_tables_design: Any) -> None:
    folder = make_tables_design()
    usual = LaunchShape(32, 4, blocks=0, bags_per_block=1, columns_per_block=0, blocks_per_sm=0)
    found = entries(folder, "fused", dtype=["float32"], index_dtype=["int64"])
    found += entries(folder, "fused", dtype=["float16"], index_dtype=["int64"], generic=[False])
    large = dataclasses.replace(usual, threads_y=16, blocks_per_sm=1)
    stream = dataclasses.replace(usual, threads_y=8, blocks_per_sm=3)
    special = [
        SpecialKernel("lookup_wide", usual, (32, 0), (0, 0), alike=True, columns=(12, 17)),
        SpecialKernel("lookup_large", large, (32, 0), (4, 0), alike=True, tables_at_once=2),
        SpecialKernel("lookup_stream", stream, (0, 32), (0, 0)),
        SpecialKernel("lookup_stream", stream, (0, 0), (0, 0), alike=False),
    ]
    make_tables_design(entries=found, special=special)
    code = """
import os
os.environ["FAKE_MULTIPROCESSORS"] = "4"
patch.apply(folder)
for n_bags, length, more in (
    (16, 32, {}), (15, 32, {}), (16, 31, {}), (16, 32, {"weighted": True}), (16, 31, {"dim": 6}),
    (18, 32, {"dtype": "float16"}), (5, 2, {}), (2, 0, {}), (0, 0, {}),
    (18, 32, {"rows": [50, 1]}), (18, 32, {"dims": [8, 4]}), (18, 32, {"dims": [3, 5]}),
    (18, 32, {"mode": "max"}), (5, 2, {"apart": 1}),
    (16, 32, {"dim": 12}), (5, 32, {"dim": 16}), (16, 32, {"dim": 20}), (16, 31, {"dim": 16}),
):
    lengths = [[length] * n_bags, [0 if more.get("rows") else length] * n_bags]
    case = make(lengths, **{"dim": 8, **more})
    if more.get("rows"):
        case.weights[1] = case.weights[1][:0]
    assert_tables_right(look_up(case), case)
case = make([[32] * 16] * 5, dim=4)
assert_tables_right(look_up(case), case)
print(*launches(), sep="\\n")
"""
    grids = [
        ("large_float32_float32_int64", "4,1,1 block 32,16,1"),
        ("tables_float32_float32_int64_fast", "15,2,1 block 32,4,1"),
        ("stream_float32_float32_int64", "12,1,1 block 32,8,1"),
        ("tables_float32_float32_int64_generic", "16,2,1 block 32,4,1"),
        ("stream_float32_float32_int64", "12,1,1 block 32,8,1"),
        ("tables_float16_float16_int64_fast", "18,2,1 block 32,2,1"),
        ("stream_float32_float32_int64", "10,1,1 block 32,8,1"),
        ("stream_float32_float32_int64", "4,1,1 block 32,8,1"),
        (
            "tables_float32_float32_int64_fast",
            "18,2,1 block 32,4,1",
        ),  # of a table without a row they are not told
        ("stream_float32_float32_int64", "12,1,1 block 32,8,1"),
        ("stream_float32_float32_int64", "12,1,1 block 32,8,1"),
        ("tables_float32_float32_int64_generic", "18,2,1 block 32,4,1"),
        ("stream_float32_float32_int64", "10,1,1 block 32,8,1"),
        ("wide_float32_float32_int64", "16,2,1 block 32,4,1"),
        ("wide_float32_float32_int64", "5,2,1 block 32,4,1"),
        ("large_float32_float32_int64", "4,1,1 block 32,16,1"),
        ("stream_float32_float32_int64", "12,1,1 block 32,8,1"),
        ("large_float32_float32_int64", "4,1,1 block 32,16,1"),  # two, two and one of five tables
        ("large_float32_float32_int64", "4,1,1 block 32,16,1"),
        ("large_float32_float32_int64", "4,1,1 block 32,16,1"),
    ]
    assert on_fake_cuda(fake_cuda, folder, TABLES + code).splitlines() == [
        f"fused_lookup_{name} grid {grid} stream 0x1000" for name, grid in grids
    ]


TICKETS = """
import threading
patch.apply(folder)
case = make([[3, 2]] * 2, dim=8)
def allocated(): return sum(line.startswith("allocate") for line in events())
look_up(case)
first = allocated()
for stream in (1, 2, 1, 2, 3):
    fake.set_stream(stream)
    look_up(case)
driver.fake_capture(1)
for _ in range(600): look_up(case)
driver.fake_capture(0)
look_up(case)
print(first, allocated())
"""


def test_tickets_are_made_some_hundred_at_a_time(fake_cuda: Path, make_tables_design: Any) -> None:
    # Tables and tickets; then, of 604 launches that need their own, those beyond the first 512.
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + TICKETS).split() == ["2", "1"]


def test_where_tables_lie_is_copied_once_per_device_and_set(fake_cuda: Path, make_tables_design: Any) -> None:
    code = """
patch.apply(folder)
case, other = make([[1, 2], [3, 0]]), make([[1]], seed=1)
events()
for _ in range(3):
    assert_tables_right(look_up(case), case)
    assert_tables_right(look_up(case, 1), case)
    assert_tables_right(look_up(other), other)
print(sorted(others()))
try:
    mixed = on_gpu(make([[1], [1]]))
    mixed.weights[1] = fake.on_gpu(mixed.weights[1], 1)
    mixed.call()
except ValueError as error:
    print(error)
"""
    assert on_fake_cuda(fake_cuda, make_tables_design(), TABLES + code).splitlines() == [
        str(["allocate 4096", "allocate 4096", "allocate 48", "allocate 96", "allocate 96"]),  # tickets first
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
    return others()

assert look_up_rows_from(0) == ["allocate 4096", "allocate 48"]  # tickets, and the set
driver.fake_capture(1)
assert look_up_rows_from(0) == []                 # known: from now on a graph holds it
assert look_up_rows_from(1) == ["allocate 48"]    # new within a capture
driver.fake_capture(0)
for begin in range(2, 258):
    assert look_up_rows_from(begin) == ["allocate 48"]
assert look_up_rows_from(2) == []
driver.fake_capture(1)                            # another thread captures: nothing can be waited for
assert look_up_rows_from(258) == ["allocate 48"]
driver.fake_capture(0)
said = look_up_rows_from(259)
assert said == ["synchronize", *["free"] * 256, "allocate 48"], said[:3]
for held in (0, 1, 258, 259):
    assert look_up_rows_from(held) == []
assert look_up_rows_from(2) == ["allocate 48"]
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
    make([[1]], output_dtype="float16"),
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
        "combined_lookup_float32_int64_distance2",
        "fused_lookup_tables_float32_float32_int64_fast 2",
    ]
