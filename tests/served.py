"""Tables, calls and sums in float64 for tests of `embedding_kernels`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.served_package import Slot, _operators, ek

Given = Tensor | ek.QuantisedTable


def some_tables(*shapes: tuple[int, int, str], seed: int = 0) -> list[Given]:
    """Tables of random rows: rows, columns, type of rows."""
    generator = torch.Generator().manual_seed(seed)
    tables: list[Given] = []
    for rows, dim, row_type in shapes:
        weight = torch.randn(rows, dim, generator=generator)
        if row_type in ("int8", "int4"):
            tables.append(ek.quantise(weight, row_type))  # type: ignore[arg-type]
        else:
            tables.append(weight.to(getattr(torch, row_type)))
    return tables


def batch(
    tables: Sequence[Given], bags: int, longest: int, *, seed: int = 0, dtype: torch.dtype = torch.int64
) -> tuple[Tensor, Tensor]:
    """Indices and offsets: bags of 0 to `longest` rows, table after table."""
    generator = torch.Generator().manual_seed(seed)
    indices, ends = [], [0]
    for table in tables:
        rows = (table.data if isinstance(table, ek.QuantisedTable) else table).size(0)
        for length in torch.randint(0, longest + 1, (bags,), generator=generator).tolist():
            indices.append(torch.randint(0, rows, (length,), generator=generator))
            ends.append(ends[-1] + length)
    return torch.cat(indices).to(dtype), torch.tensor(ends, dtype=dtype)


def expected(
    tables: Sequence[Given],
    indices: Tensor,
    offsets: Tensor,
    modes: str | Sequence[str] = "sum",
    weights: Tensor | None = None,
) -> Tensor:
    """In float64. A row outside its table counts as zeros, a bag with wrong offsets is empty."""
    modes = [modes] * len(tables) if isinstance(modes, str) else modes
    bags = (offsets.numel() - 1) // len(tables)
    columns = []
    for number, (table, mode) in enumerate(zip(tables, modes, strict=True)):
        rows = (table.dequantised() if isinstance(table, ek.QuantisedTable) else table).double()
        results = torch.zeros(bags, rows.size(1), dtype=torch.float64)
        for bag in range(bags):
            begin, end = offsets[number * bags + bag : number * bags + bag + 2].tolist()
            if not 0 <= begin < end <= indices.numel():
                continue
            looked_up = indices[begin:end].long()
            known = (looked_up >= 0) & (looked_up < rows.size(0))
            values = rows[looked_up.where(known, 0)] * known[:, None]
            if weights is not None:
                values = values * weights[begin:end, None].double()
            results[bag] = {"sum": values.sum(0), "mean": values.mean(0), "max": values.amax(0)}[mode]
        columns.append(results)
    return torch.cat(columns, dim=1)


def assert_right(output: Tensor, wanted: Tensor, scale: float = 1.0) -> None:
    """Within the rounding of the output's type, of sums of `scale`."""
    near = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[output.dtype] * scale
    torch.testing.assert_close(output.double().cpu(), wanted, rtol=near, atol=near * 4)


def look_up_features(module: ek.EmbeddingTables, bags: int, longest: int) -> tuple[Tensor, Tensor]:
    """Five features in any order, one unused, over three tables of 64 columns: found, and expected."""
    tables: list[Given] = [module.weight(number).cpu() for number in (1, 0, 2, 0, 0)]
    used = [(0, 4), (1, 0), (2, 2), (0, 1)]
    described = module._described(
        [Slot(table, feature, 64 * at, "sum") for at, (table, feature) in enumerate(used)]
    )
    indices, offsets = batch(tables, bags, longest)
    device = module.storage.device
    numbers = _operators.numbers_of(module._told(described.groups, 5, 256))
    asked = (indices.to(device), offsets.to(device), None)
    found = module._look_up(described.words.to(device), numbers, *asked)
    columns = expected(tables, indices, offsets).split(64, dim=1)
    return found, torch.cat([columns[feature] for _, feature in used], dim=1)
