"""Columns of Parquet files: row numbers, categories, and lists of them, which are bags. Needs pyarrow.

Values stay what Arrow reads: a column with gaps, or of numbers beyond 63 bits, never becomes one of floats.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError, HarnessError, MachineError
from harness.text import clean, shown
from harness.traces.columns import Column, Mapping, place_of
from harness.traces.trace import Bags, Block

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_AT_ONCE = 1 << 20
_LISTS_AT_ONCE = 1 << 14
"""Each may be long."""
_MARK = b"PAR1"
"""Begins every file and ends it."""
_END_BYTES = 8
"""How long the metadata is, and the mark."""


def parquet_blocks(
    path: Path, called: str, column: str, mapping: Mapping, rows: int
) -> tuple[Iterator[Block], Bags | None]:
    """A column of a Parquet file as row numbers; where it holds lists, also the bags that these are.

    `called`: what messages call the file. The bags are complete when the last block has been taken.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MachineError("Reading Parquet needs pyarrow; install it with: pip install pyarrow") from error

    with _in_a_sentence(called), path.open("rb") as opened:
        file = pq.ParquetFile(opened)
        _check_alone(opened, file.metadata, called)
        schema = file.schema_arrow
        kind = _stored(schema.field(place_of(column, schema.names, called)).type)
        in_lists = _is_list(kind)
        convert = Column(called, column, mapping, rows)
        if pa.types.is_nested(kind.value_type if in_lists else kind):
            raise BadInputError(
                f"{convert.where}: holds {shown(str(kind))}; name a column of values, or of lists of values."
            )
    bags = Bags() if in_lists else None

    def blocks() -> Iterator[Block]:
        with _in_a_sentence(called), path.open("rb") as opened:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            total, done = file.metadata.num_rows, 0
            at_once = _AT_ONCE if bags is None else _LISTS_AT_ONCE
            for batch in file.iter_batches(batch_size=at_once, columns=[column]):
                # By its name: Arrow also gives columns whose names begin with this one and a dot.
                values = batch.column(column)
                if isinstance(values, pa.ExtensionArray):
                    values = values.storage
                if bags is not None:
                    _take_lengths(values, bags, convert.where)
                    values = values.flatten()
                done += batch.num_rows
                yield _rows(convert, values), done / total

    return blocks(), bags


def _check_alone(opened: BinaryIO, metadata: pq.FileMetaData, called: str) -> None:
    """BadInputError where another file stands before the one that the end tells of: columns would be read out
    of that."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = sum(
        group.column(number).total_compressed_size for group in groups for number in range(group.num_columns)
    )
    size = opened.seek(0, os.SEEK_END)
    if len(_MARK) + columns + metadata.serialized_size + _END_BYTES == size:
        return
    # Indexes may stand behind the columns, too; so what tells is where one file ends and another begins.
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_MARK + _MARK) >= 0:
            raise BadInputError(
                f"{called}: is several Parquet files one behind the other, of which only the last would "
                "count; keep each on its own, or write their rows into one."
            )


def _stored(kind: pa.DataType) -> pa.DataType:
    """What values of somebody's own type are stored as."""
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    kinds = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(is_one(kind) for is_one in kinds)


def _take_lengths(lists: pa.Array, bags: Bags, where: str) -> None:
    import pyarrow.compute as pc

    if lists.null_count:
        at = int(np.argmax(lists.is_null().to_numpy(zero_copy_only=False)))
        raise BadInputError(
            f"{where}: list {bags.count + at + 1} is missing; a bag of no rows is an empty list."
        )
    bags.add(pc.list_value_length(lists).to_numpy(zero_copy_only=False))


def _rows(column: Column, values: pa.Array) -> npt.NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    kind = values.type
    if column.mapping == "first_appearance":
        if pa.types.is_temporal(kind):  # whole numbers within; Python's own times are less exact
            values = values.view(pa.int32() if kind.bit_width == 32 else pa.int64())
        encoded = pc.dictionary_encode(values, null_encoding="encode")
        # What is no number is missing, too, and not even equal to itself.
        found = [None if value != value else value for value in encoded.dictionary.to_pylist()]
        codes: npt.NDArray[np.int64] = encoded.indices.to_numpy()
        return column.categories(found, len(found))[codes]
    if not pa.types.is_integer(kind):
        return column.row_numbers([_as_text(value) for value in values.to_pylist()])
    numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if (wrong := missing | (numbers < 0) | (numbers >= column.rows)).any():
        at = int(wrong.argmax())
        column.refuse(at, None if missing[at] else str(numbers[at]))
    return column.counted(numbers.astype(np.int64))


def _as_text(value: Any) -> str | None:
    """A value that is no number by its type. Some programs keep texts without saying that they are UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return None if value is None else str(value)


@contextlib.contextmanager
def _in_a_sentence(called: str) -> Iterator[None]:
    """Whatever Arrow says of a file that it cannot make sense of, as BadInputError."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise BadInputError(f"{called}: cannot be read as Parquet: {clean(why)}.") from error
