"""Columns of CSV and Parquet files as row numbers. On the host only: pandas, and pyarrow for Parquet."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError, MachineError
from harness.traces.trace import Block

if TYPE_CHECKING:
    import pandas as pd

Mapping = Literal["rows", "first_appearance"]
"""What a column's values are. "rows": row numbers. "first_appearance": categories; the first value that
appears is row 0, the next new one row 1, and so on; a missing value counts as a value."""

_AT_ONCE = 1 << 20


def csv_blocks(path: Path, column: str, mapping: Mapping, rows: int) -> Iterator[Block]:
    """A column of a CSV file (of tab-separated values where the name ends in .tsv).

    `column` is a name in the first line, or "#N", the N-th column (from 1) of a file without such a line.
    """
    import pandas as pd

    by_number = column.startswith("#") and column[1:].isdigit()
    convert = _Converter(path, column, mapping, rows)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            chunks = pd.read_csv(
                file,
                sep="\t" if path.suffix == ".tsv" else ",",
                header=None if by_number else "infer",
                usecols=[int(column[1:]) - 1 if by_number else column],
                dtype=None if mapping == "rows" else str,
                keep_default_na=mapping == "rows",
                chunksize=_AT_ONCE,
                low_memory=False,
            )
            for chunk in chunks:
                yield convert(chunk.iloc[:, 0]), file.tell() / size
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise BadInputError(f"{path}: column {column!r} cannot be read: {_one_line(error)}.") from error


def parquet_blocks(path: Path, column: str, mapping: Mapping, rows: int) -> Iterator[Block]:
    """A column of a Parquet file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MachineError("Reading Parquet needs pyarrow; install it with: pip install pyarrow") from error

    convert = _Converter(path, column, mapping, rows)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise BadInputError(f"{path}: has no column {column!r}; it has: {', '.join(names)}.")
            total, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=[column]):
                done += batch.num_rows
                yield convert(batch.column(0).to_pandas()), done / total
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: cannot be read as Parquet: {_one_line(error)}.") from error


class _Converter:
    """Turns a column, part by part, into row numbers; remembers the categories seen."""

    def __init__(self, path: Path, column: str, mapping: Mapping, rows: int) -> None:
        self._where = f"{path}: column {column!r}"
        self._mapping, self._rows = mapping, rows
        self._row_of: dict[Hashable, int] = {}
        self._done = 0

    def __call__(self, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
        numbers = self._categories(values) if self._mapping == "first_appearance" else self._integers(values)
        self._done += len(values)
        return numbers

    def _categories(self, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
        import pandas as pd

        try:
            codes, found = pd.factorize(values, use_na_sentinel=False)
        except TypeError as error:
            raise BadInputError(f"{self._where}: holds lists or the like, not one value a line.") from error
        keys = [None if pd.isna(value) else value for value in found]
        row_of_code = np.array([self._row_of.setdefault(k, len(self._row_of)) for k in keys], dtype=np.int64)
        if len(self._row_of) > self._rows:
            raise BadInputError(
                f"{self._where}: has more than {self._rows} different values; give more rows."
            )
        return row_of_code[codes]

    def _integers(self, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
        import pandas as pd

        if pd.api.types.is_integer_dtype(values.dtype) and not values.hasnans:
            # Compared here, not after the conversion, which would wrap round beyond 64 bits.
            if (wrong := (values < 0) | (values >= self._rows)).any():
                at = int(wrong.to_numpy().argmax())
                raise BadInputError(
                    f"{self._where}: value {self._done + at + 1}: row {values.iloc[at]} is not in the table"
                    f" (0 to {self._rows - 1})."
                )
            return values.to_numpy(dtype=np.int64)
        cells = values.tolist()
        numbers = [self._row_number(cell) for cell in cells]
        if None not in numbers:
            return np.array(numbers, dtype=np.int64)
        wrong_at = [at for at, number in enumerate(numbers) if number is None]
        # pandas turns whole numbers that stand beside a missing or broken one into floats; not their fault.
        broken = [at for at in wrong_at if not (isinstance(cells[at], float) and cells[at].is_integer())]
        at = (broken or wrong_at)[0]
        missing = pd.api.types.is_scalar(cells[at]) and pd.isna(cells[at])
        raise BadInputError(
            f"{self._where}: value {self._done + at + 1} is {'missing' if missing else repr(cells[at])[:60]},"
            f" not a row number from 0 to {self._rows - 1}; where values are categories, use the mapping"
            ' "first_appearance".'
        )

    def _row_number(self, cell: object) -> int | None:
        text = str(cell)
        plain = text.isascii() and text.isdigit() and len(text) <= 18
        return int(text) if plain and int(text) < self._rows else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200]
