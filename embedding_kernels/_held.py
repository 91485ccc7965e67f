"""Tables in one allocation: views of them, moving and saving them, new values while they are looked up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from embedding_kernels._layout import ALIGNMENT, DTYPES, Place, Shape, places
from embedding_kernels._memory import (
    ROW_TYPE_OF,
    Given,
    Lent,
    alias_of,
    allocated,
    apart,
    now_views,
    rows_of,
    shape_of,
)
from embedding_kernels.quantised import QuantisedTable, quantise

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@contextlib.contextmanager
def updating(*streams: torch.cuda.Stream) -> Iterator[None]:
    """For new values, such as those of `load_state_dict`, while lookups go on: no lookup sees half of what is
    written in this block.

    It is written on the current stream. `streams`: every other one on which these tables are looked up; they
    wait for what is written, and it for them. Meanwhile no other thread may queue lookups there, and on the
    CPU, where nothing is queued, none may look up. TypeError for what is no stream.
    """
    for stream in streams:
        if not hasattr(stream, "wait_stream"):
            raise TypeError(f"updating takes streams, not a {type(stream).__name__}.")
    for stream in streams:
        torch.cuda.current_stream(stream.device).wait_stream(stream)
    try:
        yield
    finally:
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream(stream.device))


class HeldTables(nn.Module):
    """What `EmbeddingTables` are made of: `storage`, uint8, in which every table is a view.

    Views are made when asked for. They are no parameters, for then `.to()` would tear them apart.
    """

    names: tuple[str, ...]
    storage: Tensor
    faults: Tensor
    faults_alone: Tensor
    _alignment: int = ALIGNMENT
    _memory: Tensor | None = None
    """Where the tables lie already, one behind the other, to be taken over instead of copied."""
    _keeps_row_types = False
    """Whether `.half()` and the like leave rows as they are, as FBGEMM's do, which are bytes to PyTorch."""

    def __init__(self, names: Sequence[str], tables: Sequence[Given]) -> None:
        """ValueError or TypeError for what does not fit; torch.OutOfMemoryError where their device has no
        room for all tables."""
        super().__init__()
        self.names = tuple(names)
        if others := [name for name in self.names if not isinstance(name, str)]:
            raise TypeError(f"Tables are named by texts, not {others[0]!r}.")
        if len(self.names) != len(tables) or len(set(self.names)) != len(tables):
            raise ValueError(f"{len(tables)} tables need as many names, all different.")
        self._lent = Lent()
        self._pack(tables)

    def weight(self, table: int | str) -> Tensor:
        """A table's rows, a view of the storage: [rows, dim], of quantised tables uint8 [rows, bytes]."""
        return self._rows(self._number(table))

    def _rows(self, number: int, memory: Tensor | None = None) -> Tensor:
        """`memory`: that of the storage, as a tensor of its own."""
        shape, place = self._shapes[number], self._places[number]
        size, memory = shape.rows * shape.stride, self.storage if memory is None else memory
        rows = memory[place.weights : place.weights + size].view(shape.rows, shape.stride)
        return rows[:, : shape.row_bytes] if shape.quantised else rows.view(DTYPES[shape.row_type])

    def scale_bias(self, table: int | str) -> Tensor:
        """Of a quantised table, a view of the storage: float16 [rows, 2]."""
        number = self._number(table)
        if not self._shapes[number].quantised:
            raise ValueError(f"Table {self.names[number]} is not quantised.")
        return self._scales(number)

    def _scales(self, number: int, memory: Tensor | None = None) -> Tensor:
        rows, place = self._shapes[number].rows, self._places[number]
        memory = self.storage if memory is None else memory
        return memory[place.scales : place.scales + 4 * rows].view(torch.float16).view(rows, 2)

    def update_rows(
        self,
        table: int | str,
        rows: Tensor,
        values: Tensor | QuantisedTable,
        *,
        streams: Sequence[torch.cuda.Stream] = (),
    ) -> None:
        """Writes new values into some rows while lookups go on, also those of captured graphs.

        `rows` [n], integers, each once; `values` [n, dim], or quantised alike. `streams`: see `updating`.
        IndexError for a row outside the table; where `rows` lie on a GPU it is waited for once.
        """
        if not isinstance(rows, Tensor) or rows.dtype not in _INTEGERS:
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"Rows are numbered by a tensor of integers, not {kind}.")
        if not isinstance(values, Tensor | QuantisedTable):
            raise TypeError(f"New values are a tensor or a QuantisedTable, not a {type(values).__name__}.")
        number = self._number(table)
        shape = self._shapes[number]
        given = values.data if isinstance(values, QuantisedTable) else values
        if isinstance(values, QuantisedTable) != shape.quantised or (
            isinstance(values, QuantisedTable)
            and (values.row_type, values.dim) != (shape.row_type, shape.dim)
        ):
            wanted = f'ek.quantise(values, "{shape.row_type}")' if shape.quantised else "them as a tensor"
            raise ValueError(
                f"Table {self.names[number]} holds rows of {shape.row_type} and {shape.dim} columns; give "
                f"{wanted}."
            )
        if given.is_complex():
            raise ValueError(f"New values are real numbers, not {given.dtype}.")
        if any(one.is_meta or one.layout is not torch.strided for one in (rows, given)):
            raise ValueError("Rows and new values are dense tensors on a device, not sparse ones or on meta.")
        target = self._rows(number)
        if target.is_meta:
            raise ValueError("The tables are on no device (meta); call to_empty(device=...) before.")
        if rows.dim() != 1:
            raise ValueError(f"Rows are numbered by a tensor of one dimension, not of {list(rows.shape)}.")
        if given.shape != (rows.numel(), target.size(1)):
            raise ValueError(
                f"{rows.numel()} rows of table {self.names[number]} take values [{rows.numel()}, "
                f"{target.size(1)}], not {list(given.shape)}."
            )
        if rows.numel() == 0:
            return
        different = rows.unique()
        least, most = int(different[0]), int(different[-1])
        if least < 0 or most >= shape.rows:
            wrong = least if least < 0 else most
            raise IndexError(f"Table {self.names[number]} has {shape.rows} rows, and none is number {wrong}.")
        if different.numel() < rows.numel():
            raise ValueError("A row is given several values at once; give each row once.")
        if why := self._why_not_updated(number, different):
            raise ValueError(f"Table {self.names[number]}: {why}.")
        with torch.no_grad():
            at = rows.to(target.device, torch.int64)
            pairs = [(target, given.to(target.device, target.dtype))]
            if isinstance(values, QuantisedTable):
                pairs.append((self.scale_bias(number), values.scale_bias.to(target.device)))
            with updating(*streams):
                for into, new in pairs:
                    into.index_copy_(0, at, new.clone() if self._holds(new) else new)

    def _why_not_updated(self, number: int, rows: Tensor) -> str:
        """Why some of these rows of a table take no new values; empty where all do."""
        return ""

    def _holds(self, values: Tensor) -> bool:
        """Whether they lie among the tables, as those of a state_dict do."""
        begin = self.storage.data_ptr()
        return (
            values.device == self.storage.device and begin <= values.data_ptr() < begin + self.storage.numel()
        )

    def _number(self, table: int | str) -> int:
        if isinstance(table, str):
            if table not in self.names:
                raise KeyError(f"There is no table {table!r}.")
            return self.names.index(table)
        if not hasattr(table, "__index__"):
            raise TypeError(f"Tables are named or numbered, not {table!r}.")
        if not -len(self.names) <= table < len(self.names):
            raise IndexError(f"There are {len(self.names)} tables, and none is number {table}.")
        return table % len(self.names)

    def _pack(self, tables: Sequence[Given]) -> None:
        """Copies tables into one allocation, one that is given twice once. Parameters become views of it."""
        shapes = tuple(shape_of(number, table) for number, table in enumerate(tables))
        devices = [rows_of(table).device for table in tables]
        for number, device in enumerate(devices):
            if device != devices[0]:
                raise ValueError(
                    f"Tables lie on one device: table {number} is on {device}, the first on {devices[0]}."
                )
        self._shapes = shapes
        distinct: dict[int, int] = {}  # by the object, its first number
        for number, table in enumerate(tables):
            distinct.setdefault(id(table), number)
        placed, size = places([self._shapes[number] for number in distinct.values()], self._alignment)
        of_object = dict(zip(distinct, placed, strict=True))
        self._places = tuple(of_object[id(table)] for table in tables)
        storage, self._memory = self._memory, None
        if storage is None:
            storage = allocated(size, devices[0])
        self.register_buffer("storage", storage, persistent=False)
        with torch.no_grad():
            for number in distinct.values():
                table, view = tables[number], self._rows(number)
                if view.data_ptr() != rows_of(table).data_ptr():
                    view.copy_(rows_of(table))
                if isinstance(table, QuantisedTable):
                    self.scale_bias(number).copy_(table.scale_bias)
                elif isinstance(table, nn.Parameter):
                    table.data = apart(self._rows(number, self._lendable()))
                    now_views([table], self)

    @torch.inference_mode(mode=False)
    def _lendable(self) -> Tensor:
        """The storage, for views that others keep.

        What puts a tensor on the CPU into shared memory, `share_memory()` or handing the module to another
        process, frees where it lay, whoever looks there. So the others' views hold on to a tensor that nobody
        moves, and the module's own is another of the same memory.
        """
        storage, lent = self.storage, self._lent.memory
        if storage.device.type != "cpu" or storage.is_shared():
            return storage
        if lent is None or lent.data_ptr() != storage.data_ptr():
            self._lent.memory, self._buffers["storage"] = storage, alias_of(storage)
            return storage
        return lent

    def __copy__(self) -> HeldTables:
        """Tables of their own in the same memory: what is moved or converted of the one is not of the
        other."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        lent, made._lent, made._buffers = self._lendable(), Lent(), dict(self._buffers)
        if lent is not self.storage:
            made._lent.memory, made._buffers["storage"] = lent, alias_of(lent)
        return made

    def _repacked(self) -> None:
        """For what depends on the types of rows and on where they lie."""

    @torch.inference_mode(mode=False)
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HeldTables:
        """What `.to()`, `.cuda()`, `.half()` and the like do: the allocation is moved as one."""
        device = self.storage.device
        after = {name: fn(torch.empty(0, dtype=dtype, device=device)).dtype for name, dtype in DTYPES.items()}
        types = [
            shape.row_type
            if shape.quantised or self._keeps_row_types
            else ROW_TYPE_OF.get(after[shape.row_type])
            for shape in self._shapes
        ]
        if None in types:
            raise TypeError(
                "Rows of EmbeddingTables are float32, float16 or bfloat16. Other modules may have been "
                "converted before these: call .float(), .half() or .bfloat16() of the whole model."
            )
        held, counted = self.storage, {"faults": self.faults, "faults_alone": self.faults_alone}

        def keeping_bytes(buffer: Tensor) -> Tensor:
            # `.type(...)` casts whatever there is, and these are bytes and counts.
            probe = fn(torch.empty(0, dtype=buffer.dtype, device=buffer.device))
            return fn(buffer) if probe.dtype == buffer.dtype else buffer.to(probe.device)

        super()._apply(keeping_bytes, recurse)  # type: ignore[no-untyped-call]
        if types != [shape.row_type for shape in self._shapes]:
            self._convert(cast("list[str]", types))
        if self.storage is not held:  # otherwise captured graphs go on reading what is there
            # `to_empty` leaves anything in buffers, and lookups trust these.
            self._repacked()
            for name, before in counted.items():
                words = torch.zeros_like(before, device=self.storage.device)
                if not before.is_meta:
                    words.copy_(before)
                self.register_buffer(name, words, persistent=False)
        return self

    def _convert(self, row_types: Sequence[str]) -> None:
        """Holds each table's rows as this type, in a new storage; `_repacked` has to be called behind it.
        ValueError where they cannot be quantised."""
        first: dict[tuple[Place, Shape], Given] = {}  # a table that was given twice stays one
        # One without rows takes no room, so its place is that of the next table, too.
        known = list(zip(self._places, self._shapes, strict=True))
        for number, key in enumerate(known):
            if key not in first:
                first[key] = self._given(number, row_types[number])
        self._pack([first[key] for key in known])

    def _given(self, number: int, row_type: str) -> Given:
        shape, rows = self._shapes[number], self._rows(number)
        if shape.quantised:
            table = QuantisedTable(cast(Any, shape.row_type), shape.dim, rows, self.scale_bias(number))
            if row_type == shape.row_type:
                return table
            rows = table.dequantised()
        return rows.to(DTYPES[row_type]) if row_type in DTYPES else quantise(rows, cast(Any, row_type))

    def _state(self, memory: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        """Keys, without the module's own prefix, and views of the storage; `memory`: see `_rows`."""
        for number, (name, shape) in enumerate(zip(self.names, self._shapes, strict=True)):
            begin = f"{name}." if name else ""
            yield f"{begin}weight", self._rows(number, memory)
            if shape.quantised:
                yield f"{begin}scale_bias", self._scales(number, memory)

    @torch.inference_mode(mode=False)
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for key, view in self._state(self._lendable()):
            of_tables = self._holds(view) or view.numel() == 0
            destination[prefix + key] = apart(view) if of_tables else view.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Copies into the storage, on the current stream; also where new tensors are to be assigned."""
        known = {prefix + key: view for key, view in self._state()}
        fitting: dict[str, Tensor] = {}
        for key, view in known.items():
            if key not in state_dict:
                missing_keys.append(key)
            elif not isinstance(state_dict[key], Tensor):
                error_msgs.append(f"{key}: is no tensor but {type(state_dict[key]).__name__}.")
            elif view.is_meta or state_dict[key].is_meta:
                what = "what it is loaded into" if view.is_meta else "what is loaded"
                error_msgs.append(f"{key}: {what} is on no device (meta); call to_empty(device=...) before.")
            elif view.dtype == torch.uint8 != state_dict[key].dtype:
                error_msgs.append(f"{key}: is {state_dict[key].dtype}, and quantised rows are held.")
            elif state_dict[key].shape != view.shape:
                given, held = list(state_dict[key].shape), list(view.shape)
                error_msgs.append(f"{key}: has the shape {given}, and {held} is held.")
            elif why := self._why_not_loaded(key.removeprefix(prefix), view, state_dict[key]):
                error_msgs.append(f"{key}: {why}.")
            else:
                fitting[key.removeprefix(prefix)] = state_dict[key]
        with torch.no_grad():
            self._load(fitting)
        unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in known]

    def _why_not_loaded(self, key: str, held: Tensor, given: Tensor) -> str:
        """For tensors of the right shape that are of other tables all the same; empty where they are not."""
        return ""

    def _load(self, state: dict[str, Tensor]) -> None:
        """Copies what fits, by the keys of `_state`."""
        for key, view in self._state():
            if key in state:
                view.copy_(state[key])
