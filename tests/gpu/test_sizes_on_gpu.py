"""Sizes at which a product leaves 32 bits, and offsets that end early: right, whoever answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from harness import patch
from tests.gpu.workers import one_by_one

pytestmark = pytest.mark.gpu

GIB = 1 << 30
STRIDES = [GIB - 4, GIB, GIB + 4, 2 * GIB]  # of float32: just below 4 GiB, 4 GiB, just above, 8 GiB
MANY_ROWS = [2 * GIB - 1, 2 * GIB, 4 * GIB - 2, 4 * GIB - 1, 4 * GIB, 4 * GIB + 3]
ROW = torch.tensor([1.0, 2.0, 3.0, 4.0])


def room(count: int, dtype: torch.dtype) -> torch.Tensor:
    """So many elements on the GPU, not written."""
    needed = count * dtype.itemsize + GIB
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"needs {needed // GIB} GiB of GPU memory")
    return torch.empty(count, dtype=dtype, device="cuda")


def far_apart(stride: int) -> torch.Tensor:
    """Three rows of four columns: ROW times 1, 10 and 100."""
    table = room(2 * stride + 4, torch.float32).as_strided((3, 4), (stride, 1))
    for row in range(3):
        table[row] = ROW * 10**row
    return table


def many(rows: int) -> tuple[torch.Tensor, Sequence[int]]:
    """A table of one column, and those of its rows that are written: 1, 10, 100 and so on."""
    table = room(rows, torch.float16).view(rows, 1)
    chosen = sorted({0, 1, rows // 2, rows - 2, rows - 1})
    for power, row in enumerate(chosen):
        table[row] = 10**power / 100
    return table, chosen


@pytest.fixture(autouse=True)
def room_for_one() -> Iterator[None]:
    """Of all processes one has such tables at a time: all of theirs together would fill a GPU."""
    with one_by_one("memory"):
        torch.cuda.empty_cache()
        yield
        torch.cuda.empty_cache()


@pytest.mark.parametrize("stride", STRIDES)
def test_rows_far_apart(per_table: Path, stride: int) -> None:
    patch.apply(per_table)
    indices, offsets = torch.tensor([0, 2, 1], device="cuda"), torch.tensor([0, 2], device="cuda")
    got = torch.nn.functional.embedding_bag(indices, far_apart(stride), offsets, mode="sum")
    assert got.tolist() == [(ROW * 101).tolist(), (ROW * 10).tolist()]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(
    ("bags", "length"), [(2, 3), (2000, 2), (2000, 50)]
)  # one for each kernel of `fused`
def test_rows_far_apart_of_all_tables(for_all_tables: Path, stride: int, bags: int, length: int) -> None:
    patch.apply(for_all_tables)
    table = far_apart(stride)
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(3, (2 * bags, length), generator=generator)
    values = (10.0 ** torch.arange(3))[indices].sum(1).view(2, bags).t()
    offsets = torch.arange(0, 2 * bags * length + 1, length, device="cuda")
    got = patch.embedding_bags([table, table], indices.flatten().cuda(), offsets)
    assert torch.equal(got.cpu(), torch.cat([values[:, :1] * ROW, values[:, 1:] * ROW], dim=1))


@pytest.mark.parametrize("rows", MANY_ROWS)
def test_as_many_rows_as_fit_no_32_bits(per_table: Path, rows: int) -> None:
    patch.apply(per_table)
    table, chosen = many(rows)
    indices, offsets = torch.tensor([*chosen], device="cuda"), torch.arange(len(chosen), device="cuda")
    got = torch.nn.functional.embedding_bag(indices, table, offsets, mode="sum")
    assert torch.equal(got, table[indices])


@pytest.mark.parametrize("rows", MANY_ROWS)
def test_as_many_rows_of_all_tables_as_fit_no_32_bits(for_all_tables: Path, rows: int) -> None:
    patch.apply(for_all_tables)
    table, chosen = many(rows)
    indices, offsets = torch.tensor([*chosen], device="cuda"), torch.arange(len(chosen) + 1, device="cuda")
    assert torch.equal(patch.embedding_bags([table], indices, offsets), table[indices])


@pytest.mark.parametrize("offsets", [[0, 2, 4], [0, 2, 7], [0, 2, 2], [0, 0]])
def test_the_last_offset_ends_the_last_bag(per_table: Path, offsets: list[int]) -> None:
    """A design does as PyTorch on the CPU. PyTorch's own kernel, up to 2.13, goes on to the last index."""
    weight = torch.arange(1.0, 41).reshape(10, 4)
    indices = torch.tensor([0, 1, 2, 3, 9, 9, 9])

    def look_up(device: str) -> torch.Tensor:
        given = indices.to(device), weight.to(device), torch.tensor(offsets, device=device)
        return torch.nn.functional.embedding_bag(*given, mode="sum", include_last_offset=True).cpu()

    of_pytorch = look_up("cuda")
    patch.apply(per_table)
    got = look_up("cuda")
    assert torch.equal(got, look_up("cpu") if patch.calls()["design"] else of_pytorch)


@pytest.mark.parametrize("applied", [True, False])
def test_what_no_bag_holds_is_not_looked_up(for_all_tables: Path, applied: bool) -> None:
    """So a captured graph may be replayed with fewer indices than its tensor holds; behind is anything."""
    if applied:
        patch.apply(for_all_tables)
    table = torch.arange(1.0, 41, device="cuda").reshape(10, 4)
    indices = torch.tensor([-5, 0, 1, 2, 99], device="cuda")
    got = patch.embedding_bags([table, table], indices, torch.tensor([1, 2, 4], device="cuda"))
    assert torch.equal(got[0, :4], table[0])
    assert torch.equal(got[0, 4:], table[1] + table[2])
    assert patch.calls()["design" if applied else "stock"] >= 1
