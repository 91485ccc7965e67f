"""Sizes at which some product leaves 32 bits: computed as they are, or left to PyTorch's own kernels.

The tensors are larger than this machine's memory, see vast.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import patch
from harness.patch.manifest import LaunchShape
from tests.unit.patch.fake_gpu import on_fake_cuda
from tests.unit.patch.vast import vast

LARGE = 1 << 31
COUNTED = LARGE - 1025
"""The most that kernels count, see opt_designs/common/tables_args.h."""
IMPORT = "from tests.unit.patch.vast import vast\n"


def table(
    rows: int, dim: int, stride: int, columns: int = 1, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return vast(dtype, (rows, dim), (stride, columns))


def numbers(count: int) -> torch.Tensor:
    return vast(torch.int32, (count,), (1,))


FEW = torch.tensor([1, 2, 3], dtype=torch.int32)
BAGS = torch.tensor([0, 2], dtype=torch.int32)
ROWS, ROW_BYTES = "a table has 2^32 - 1 rows or more", "a row has some 2^31 columns or bytes, or more"
LOOKUPS, MANY_BAGS = "there are some 2^31 lookups or more", "there are some 2^31 bags or more"
ROOM = "more bags than one launch has room for"


def planned(
    weight: torch.Tensor, indices: torch.Tensor = FEW, offsets: torch.Tensor = BAGS
) -> dict[str, Any]:
    text = torch.ops.embedding_harness.plan(weight, indices, offsets, 0, None, False, -1, 132)
    answer: dict[str, Any] = json.loads(text)
    return answer


def planned_tables(
    weights: list[torch.Tensor], indices: torch.Tensor = FEW, offsets: torch.Tensor | None = None
) -> dict[str, Any]:
    if offsets is None:
        offsets = torch.tensor([0, 2, 3], dtype=torch.int32)
    answer: dict[str, Any] = json.loads(torch.ops.embedding_harness.plan_tables(weights, indices, offsets, 0))
    return answer


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((LARGE - 1, 1, 1), ""),
        ((LARGE, 1, 1), ""),
        ((2 * LARGE - 2, 1, 1), ""),
        ((2 * LARGE - 1, 1, 1), ROWS),
        ((2 * LARGE, 1, 1), ROWS),
        ((2 * LARGE + 5, 1, 1), ROWS),
        ((3, 4, LARGE // 4), ""),  # 2 GiB apart
        ((3, 4, LARGE // 2 - 4), ""),  # the last multiple of 16 bytes below 4 GiB
        ((3, 4, LARGE // 2 - 1), ""),
        ((3, 4, LARGE // 2), ""),
        ((3, 4, LARGE // 2 + 4), ""),  # in 32 bits 16 bytes apart
        ((3, 4, LARGE), ""),
        ((3, 4, 2 * LARGE), ""),  # in 32 bits the same row
        ((1, 4, 2 * LARGE), ""),  # no row follows
        ((2, 3, 1, LARGE // 2 - 1), ""),
        ((2, 3, 1, LARGE // 2), ""),
        ((2, 3, 1, 2 * LARGE), ""),  # in 32 bits the same column
        ((2, 1, 1, LARGE), ""),  # no column follows
        ((3, (LARGE - 1024) // 4 - 1, 0), ""),
        ((3, (LARGE - 1024) // 4, 0), ROW_BYTES),
        ((3, LARGE, 0), ROW_BYTES),
    ],
)
def test_a_vast_table_is_taken_as_it_is_or_left_to_pytorch(
    make_design: Any, make_tables_design: Any, given: Any, why: str
) -> None:
    weight = table(*given)
    patch.apply(make_design())
    found = planned(weight)
    if why:
        assert found == {"refusal": why}
    else:
        assert (found["rows"], found["dim"]) == given[:2]
        assert found["row_stride"] == weight.stride(0)
    if weight.size(1) > 1 and weight.stride(1) != 1:
        return  # in embedding_bags rows are contiguous
    patch.apply(make_tables_design())
    found = planned_tables([weight])
    assert found.get("refusal", "") == why
    assert why or (found["rows"], found["row_stride_bytes"]) == (given[0], 4 * weight.stride(0))
    small = torch.zeros(5, weight.size(1)) if weight.size(1) < 100 else weight
    assert (
        planned_tables([small, weight], FEW, torch.tensor([0, 2, 3], dtype=torch.int32)).get("refusal", "")
        == why
    )


def test_strides_count_in_bytes(make_design: Any) -> None:
    patch.apply(make_design())
    dim = (LARGE - 1024) // 2
    assert "refusal" not in planned(table(3, dim - 1, 0, dtype=torch.float16))
    assert planned(table(3, dim, 0, dtype=torch.float16)) == {"refusal": ROW_BYTES}


@pytest.mark.parametrize(
    ("count", "why"), [(COUNTED, ""), (COUNTED + 1, LOOKUPS), (LARGE - 1, LOOKUPS), (LARGE, LOOKUPS)]
)
def test_lookups(make_design: Any, make_tables_design: Any, count: int, why: str) -> None:
    indices = numbers(count)
    patch.apply(make_design())
    assert planned(torch.zeros(5, 4), indices).get("refusal", "") == why
    patch.apply(make_tables_design())
    assert planned_tables([torch.zeros(5, 4)], indices).get("refusal", "") == why


@pytest.mark.parametrize(
    ("count", "why"),
    [(COUNTED, ""), (COUNTED + 1, MANY_BAGS), (LARGE, MANY_BAGS), (2 * LARGE + 1, MANY_BAGS)],
)
def test_bags(make_design: Any, make_tables_design: Any, count: int, why: str) -> None:
    patch.apply(make_design())
    assert planned(torch.zeros(5, 4), FEW, numbers(count)).get("refusal", "") == why
    patch.apply(make_tables_design())
    assert planned_tables([torch.zeros(5, 4)], FEW, numbers(count + 1)).get("refusal", "") == why


@pytest.mark.parametrize(
    ("chunks", "why"), [(1, ""), (31, ""), (32, ROOM), (33, ROOM), (64, ROOM), (65, ROOM)]
)
def test_a_launch_has_room_for_2_31_blocks(
    make_design: Any, make_tables_design: Any, chunks: int, why: str
) -> None:
    bags = LARGE // 32  # blocks: bags × chunks of 8 columns
    weight = torch.zeros(5, 8 * chunks)
    covering = LaunchShape(32, 4, blocks=0, bags_per_block=1, columns_per_block=8, blocks_per_sm=0)
    patch.apply(make_design(launch=covering))
    found = planned(weight, FEW, numbers(bags))
    assert found == {"refusal": why} if why else found["blocks"] == bags * chunks
    patch.apply(make_tables_design(launch=covering))
    assert planned_tables([weight], FEW, numbers(bags + 1)).get("refusal", "") == why
    # Blocks that stride need not be as many as there is work.
    patch.apply(make_design("few_blocks", launch=LaunchShape(32, 8, 1024, 1, 0, 0)))
    assert planned(weight, FEW, numbers(bags))["blocks"] == 1024


@pytest.mark.parametrize(
    ("tables", "bags", "dim", "counted"),
    [
        (1, COUNTED, 4, True),
        (3, COUNTED // 3, 4, True),
        (5, COUNTED // 5 + 1, 4, False),
        (4096, LARGE // 4096, 4, False),  # 2^31
        (65535, LARGE // 65535 * 2, 4, False),  # just below 2^32
        (4096, 2 * LARGE // 4096, 4, False),  # 2^32: nothing at all in 32 bits
        (3, COUNTED // 6, 256, True),  # two rounds of columns
        (3, COUNTED // 6 + 1, 256, False),
    ],
)
def test_bags_of_all_tables_that_special_kernels_do_not_count(
    make_tables_design: Any, tables: int, bags: int, dim: int, counted: bool
) -> None:
    patch.apply(make_tables_design())
    weights = [torch.zeros(5, dim)] * tables
    found = planned_tables(weights, FEW, numbers(tables * bags + 1))
    assert (found["n_tables"], found["n_bags"]) == (tables, bags)
    assert found["fast"] is counted


@pytest.mark.parametrize(
    ("rows", "stride", "dtype", "fast"),
    [
        (LARGE - 2, 4, torch.float32, True),
        (LARGE - 1, 4, torch.float32, False),  # its last row number would be no number of 31 bits and a mark
        (3, LARGE // 2 - 4, torch.float32, True),
        (3, LARGE // 2, torch.float32, False),  # 4 GiB apart
        (3, 5, torch.float32, True),
        (3, 5, torch.float16, False),  # rows begin at multiples of two bytes
        (3, 6, torch.float16, True),
    ],
)
def test_what_special_kernels_are_told_of(
    make_tables_design: Any, rows: int, stride: int, dtype: torch.dtype, fast: bool
) -> None:
    patch.apply(make_tables_design())
    assert planned_tables([table(rows, 4, stride, dtype=dtype)])["fast"] is fast


def test_more_tables_than_a_grid_has_rows_of_blocks_take_several_launches(
    fake_cuda: Path, make_tables_design: Any
) -> None:
    code = """
patch.apply(folder)
count = 65536 + 5
held = torch.ones(1, 4), torch.zeros(count, dtype=torch.int64), torch.arange(count + 1)
table, indices, offsets = (fake.on_gpu(tensor, 0) for tensor in held)
pooled = fake.on_cpu(patch.embedding_bags([table] * count, indices, offsets))
print(pooled.shape, pooled.min(), pooled.max())
print(*(line.partition("grid ")[2].partition(" ")[0] for line in launches()))
"""
    folder = make_tables_design(kernels_of="slow_tables", launch=LaunchShape(32, 4, 0, 4, 0, 0))
    assert on_fake_cuda(fake_cuda, folder, code).splitlines() == [
        "torch.Size([1, 262164]) tensor(1.) tensor(1.)",
        "1,32771,1 1,32770,1",
    ]


ROW = torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("stride", [LARGE // 2 - 4, LARGE // 2, LARGE // 2 + 4, LARGE, 2 * LARGE])
def test_rows_far_apart_are_right_on_the_cpu(stride: int) -> None:
    weight = table(3, 4, stride)
    for row in range(3):
        weight[row] = ROW * 10**row
    indices, offsets = torch.tensor([0, 2, 1]), torch.tensor([0, 2, 3])
    wanted = [(ROW * 101).tolist(), (ROW * 10).tolist()]
    assert patch.embedding_bags([weight], indices, offsets).tolist() == wanted
    assert torch.nn.functional.embedding_bag(indices, weight, offsets[:-1], mode="sum").tolist() == wanted


def test_vast_tables_are_right_where_a_design_takes_them(fake_cuda: Path, make_tables_design: Any) -> None:
    code = (
        IMPORT
        + """
patch.apply(folder)
for rows, stride, chosen in (
    (3, 2**30 - 4, (0, 2, 1)),
    (3, 2**30, (0, 2, 1)),
    (3, 2**31, (0, 2, 1)),
    (2**31, 4, (0, 2**31 - 1, 2**30)),
    (2**32 - 2, 4, (2**32 - 3, 2**31, 2**31 - 1)),
):
    weight = vast(torch.float32, (rows, 4), (stride, 1))
    for i, row in enumerate(chosen):
        weight[row] = torch.arange(1.0, 5.0) * 10**i
    held = [weight, torch.tensor(chosen), torch.tensor([0, 2, 3])]
    here = [fake.on_gpu(tensor, 0) for tensor in held]
    print(fake.on_cpu(patch.embedding_bags(here[:1], *here[1:])).tolist(), patch.calls()["design"])
driver.fake_capture(1)  # so that PyTorch's kernels, which are not here, are not asked
for rows, stride in ((2**32 - 1, 4),):
    held = [vast(torch.float32, (rows, 4), (stride, 1)), indices, torch.tensor([0, 3])]
    here = [fake.on_gpu(tensor, 0) for tensor in held]
    try:
        patch.embedding_bags(here[:1], *here[1:])
    except RuntimeError as error:
        print(patch.calls()["fallback"])
"""
    )
    wanted = [[11.0, 22.0, 33.0, 44.0], [100.0, 200.0, 300.0, 400.0]]
    assert on_fake_cuda(fake_cuda, make_tables_design(), code).splitlines() == [
        f"{wanted} 1",
        f"{wanted} 2",
        f"{wanted} 3",
        f"{wanted} 4",
        f"{wanted} 5",
        ROWS,
    ]
