"""`EmbeddingTables`: tables in one allocation, looked up together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from embedding_kernels._held import HeldTables
from embedding_kernels._layout import DTYPES, KERNELS, MODES, USUAL, Described, Limits, Shape, Slot, described
from embedding_kernels._memory import ROW_TYPE_OF, Given, is_held
from embedding_kernels._one_table import Table
from embedding_kernels._operators import (
    FAULT_WORDS,
    OUTPUT_TYPES,
    Numbers,
    lookup,
    lookup_asserting,
    lookup_eager,
    numbers_of,
    refuse_tangent,
    without_gradient,
)
from embedding_kernels._refusals import why_not_looked_up
from embedding_kernels.faults import BadLookups, read
from embedding_kernels.quantised import QuantisedTable

is_compiling = torch.compiler.is_compiling
is_traced_by_dynamo = torch.compiler.is_dynamo_compiling
"""Quicker than `is_compiling`; what else traces has types of tensors of its own."""
tracing_state = torch._C._get_tracing_state
_PLAIN_CALL = nn.Module.__call__
"""Tools that want to see every module's call put their own in its place, torch.fx for one."""
Mode = Literal["sum", "mean", "max"]
Kernel = Literal["fused", "vectorized"]
OnBadIndex = Literal["count", "assert", "ignore"]


class _Calls(NamedTuple):
    """What the operator is told of all tables, and of each by itself. Kept, for captured graphs read it."""

    descriptors: Tensor
    numbers: Numbers
    alone: Tensor
    alone_numbers: list[Numbers]


class EmbeddingTables(HeldTables):
    """Embedding tables of any rows, columns and types of rows, looked up in one call, for inference.

    All tables lie in one allocation, `storage`. What `state_dict` holds are views of it; `load_state_dict`,
    `update_rows` and in-place changes of `weight(...)` write into it, so captured CUDA graphs see them.
    Parameters that the module was made of become views of it too, until it is moved to another device or
    into shared memory.

    A wrong row number or offset (`on_bad_index`) is survived: "count", a row outside its table counts as
    zeros, a bag with wrong offsets is empty, and `bad_lookups` tells how many there were and which was
    first; "ignore", the same and nobody is told; "assert", on a GPU a device-side assertion, which ends the
    process's use of it, and on the CPU a RuntimeError.

    There is no gradient: a backward pass that comes here raises RuntimeError.
    """

    descriptors: Tensor
    alone: Tensor
    on_bad_index: OnBadIndex
    modes: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    output_dtype: torch.dtype
    _limits: Limits = USUAL

    # What is made while serving may be changed outside of inference_mode, too.
    @torch.inference_mode(mode=False)
    def __init__(
        self,
        tables: Sequence[Tensor | QuantisedTable | nn.EmbeddingBag],
        *,
        modes: Mode | Sequence[Mode] | None = None,
        names: Sequence[str] | None = None,
        output_dtype: torch.dtype | None = None,
        on_bad_index: OnBadIndex = "count",
        kernel: Kernel | Sequence[Kernel] = "fused",
    ) -> None:
        """`tables`: [rows, dim] of float32, float16 or bfloat16, quantised ones, or modules, on one device.

        `modes`: of all tables or of each; of modules by default their own, otherwise "sum". `names`: what
        their keys in `state_dict` begin with, by default their numbers. `output_dtype`: float32, float16 or
        bfloat16; by default that of the rows where all tables have it, of quantised ones float16, and
        float32 where types differ. `kernel`: see `use_kernel`. ValueError or TypeError for what does not fit.
        """
        if isinstance(listed := cast(object, tables), Tensor) or not hasattr(listed, "__len__"):
            raise TypeError(f"EmbeddingTables takes a list of tables, not a {type(tables).__name__}.")
        if not tables:
            raise ValueError("EmbeddingTables needs at least one table.")
        if isinstance(names, str):
            raise TypeError(f"names: a list of texts, one for each table, not the text {names!r}.")
        require_known(on_bad_index)
        if output_dtype is not None and output_dtype not in ROW_TYPE_OF:
            raise ValueError(f"Outputs are float32, float16 or bfloat16, not {output_dtype}.")
        for number, table in enumerate(tables):
            if isinstance(table, nn.EmbeddingBag) and (why := why_not_looked_up(table)):
                raise ValueError(f"Table {number} cannot be looked up here: {why}.")
            weight = table.weight if isinstance(table, nn.EmbeddingBag) else table
            if isinstance(weight, nn.Parameter) and is_held(weight):
                raise ValueError(f"Table {number} lies in tables that were made of it before; use those.")
        given: list[Given] = [t.weight if isinstance(t, nn.EmbeddingBag) else t for t in tables]
        wants_gradient = any(isinstance(table, Tensor) and table.requires_grad for table in given)
        super().__init__(names if names is not None else [str(n) for n in range(len(tables))], given)
        self.on_bad_index = on_bad_index
        self.modes = _modes(tables, modes)
        self.kernels = kernels_of(len(tables), kernel)
        self._include_last_offset = tuple(
            bool(getattr(table, "include_last_offset", False)) for table in tables
        )
        self._asked_dtype = output_dtype
        self._anchor: Tensor | None = None
        if wants_gradient:
            self._refuse_gradients()
        for name, size in {"faults": (FAULT_WORDS,), "faults_alone": (len(tables), FAULT_WORDS)}.items():
            words = torch.zeros(size, dtype=torch.int64, device=self.storage.device)
            self.register_buffer(name, words, persistent=False)
        self._repacked()

    def requires_grad_(self, requires_grad: bool = True) -> EmbeddingTables:
        """Whether a backward pass that comes here is refused, or leaves the tables out as frozen ones."""
        self._anchor = None
        if requires_grad:
            self._refuse_gradients()
        return self

    def _refuse_gradients(self) -> None:
        # A backward pass that comes here is refused; one scalar stands for all tables, whichever was asked.
        self._anchor = torch.zeros((), requires_grad=True)

    # Looking up.

    def __call__(self, *given: Any, **named: Any) -> Any:
        """As nn.Module's own, which takes twice the host's time to find that nobody asked for anything."""
        own = self.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "_compiled_call_impl" in own
            or _global_forward_hooks
            or _global_forward_pre_hooks
            or _global_backward_hooks
            or _global_backward_pre_hooks
            or nn.Module.__call__ is not _PLAIN_CALL
            or tracing_state()
        ):
            return super().__call__(*given, **named)
        return self.forward(*given, **named)

    def forward(self, indices: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None) -> Tensor:
        """The bags of every table, side by side: [bags, sum of dims].

        `indices` [n], int32 or int64: row numbers, table after table and bag after bag. `offsets` [tables ×
        bags + 1]: where each bag begins in `indices`, and at the end n. `per_sample_weights` [n], where all
        modes are "sum": a factor for each row. An empty bag is zero.
        """
        buffers = self._buffers
        plain = per_sample_weights is None and self._anchor is None and type(indices) is Tensor
        if plain and not is_traced_by_dynamo():  # the usual call, and nothing that only others need
            faults = None if self.on_bad_index == "assert" else buffers["faults"]
            told = self._numbers.tensor
            return lookup_eager(
                buffers["storage"], buffers["descriptors"], indices, offsets, None, faults, told
            )
        return self._look_up(buffers["descriptors"], self._numbers, indices, offsets, per_sample_weights)

    def look_up_one(
        self, table: int, indices: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """[bags, dim] of one table; `offsets` [bags + 1]. IndexError where there is no such table."""
        table = self._number(table)
        alone = cast(Tensor, self._buffers["alone"]).narrow(0, table, 1)
        faults = cast(Tensor, self._buffers["faults_alone"])[table]
        adds_up = self.modes[table] == "sum"  # whatever the others do
        numbers = self._alone_numbers[table]
        return self._look_up(alone, numbers, indices, offsets, per_sample_weights, faults, adds_up)

    def _look_up(
        self,
        descriptors: Tensor | None,
        numbers: Numbers,
        indices: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        faults: Tensor | None = None,
        adds_up: bool | None = None,
    ) -> Tensor:
        """`numbers`: see `_told`. `faults`: where they are counted, by default with those of calls of all
        tables. `adds_up`: whether the mode of all that is looked up is "sum", by default of all tables. Every
        step is time of the host in every call."""
        if weights is not None and not (self._adds_up if adds_up is None else adds_up):
            raise ValueError('Per-sample weights are for tables whose modes are all "sum".')
        if weights is not None:
            refuse_tangent(weights)
        buffers = self._buffers  # each found there at once, where as an attribute of a module it is searched
        if self.on_bad_index == "assert":
            faults = None
        elif faults is None:
            faults = buffers["faults"]
        output: Tensor
        if type(indices) is Tensor and not is_traced_by_dynamo() and (told := numbers.tensor) is not None:
            output = lookup_eager(buffers["storage"], descriptors, indices, offsets, weights, faults, told)
        elif faults is None and is_compiling():
            listed = numbers.listed
            output = lookup_asserting(buffers["storage"], descriptors, indices, offsets, weights, listed)
        else:
            listed = numbers.listed
            output = lookup(buffers["storage"], descriptors, indices, offsets, weights, faults, listed)
        if (weights is not None or self._anchor is not None) and torch.is_grad_enabled():
            if weights is not None and weights.requires_grad:
                return without_gradient(output, weights)
            if self._anchor is not None and not torch.compiler.is_exporting():
                return without_gradient(output, self._anchor)
        return output

    def use_kernel(self, kernel: Kernel | Sequence[Kernel]) -> None:
        """Which kernels look up on a GPU from the next call on, in all tables or in each; outputs stay the
        same but for the order in which rows are added.

        "fused" chooses by the call's shape among kernels that go through all tables together; "vectorized"
        takes bag by bag. Either takes any tables; those with different ones are launched apart. CUDA graphs
        go on with the kernels that they were captured with. Meanwhile no other thread may look up. ValueError
        for what does not fit.
        """
        self.kernels = kernels_of(len(self.names), kernel)
        self._describe()

    def use_limits(
        self,
        few_rows: int | None = None,
        many_bags: int | None = None,
        crowded_clocks: int | None = None,
    ) -> None:
        """Between which of its kernels "fused" chooses, from the next call on, and when memory is crowded.

        In tables that are alike (of one width and mode, in whole 16 bytes) calls of fewer rows per bag than
        `few_rows`, on average, go to a kernel for few rows; others, of float32 and with at least `many_bags`
        bags per multiprocessor, to one for many bags; the rest to one for any call. Of rows of more than
        128 columns of float32 both of the latter are one, for wide rows. None: as measured on one
        H100, 32 and 3. The kernel for many bags has fewer rows in flight while a warp waits for more than
        `crowded_clocks` clocks, below 2^24, for 1 KB of them; 0: always. None: what follows from the GPU's
        clock and memory, 718 on an H100. `tune` finds them. CUDA graphs go on with what they were captured
        with. Meanwhile no other thread may look up. ValueError for what is no count below 2^31.
        """
        limits = Limits(few_rows, many_bags, crowded_clocks)
        if problem := limits.problem():
            raise ValueError(f"{problem}.")
        self._limits = limits
        self._describe()

    @property
    def columns(self) -> int:
        """Of an output."""
        return self._columns

    def bad_lookups(self, *, forget: bool = False) -> BadLookups | None:
        """What was wrong since the module was made or they were last forgotten; None: nothing, or nobody
        counts.

        See `embedding_kernels.bad_lookups`.
        """
        if self.on_bad_index != "count" or self.faults.is_meta:
            return None
        together, *alone = read(self.faults[None], self.faults_alone)
        if forget:
            self.faults.zero_()
            self.faults_alone.zero_()
        met = [told for told in (together, *alone) if told.any]
        if not met:
            return None
        first, rows, offsets = met[0], sum(told.rows for told in met), sum(told.offsets for told in met)
        name = self._feature_name(first.table) if together.any else self.names[alone.index(first)]
        return BadLookups("", rows, offsets, name, first.bag, first.index)

    def _feature_name(self, feature: int) -> str:
        return self.names[feature]

    # What one call looks up.

    def _slots(self) -> list[Slot]:
        slots, column = [], 0
        for number, (shape, mode) in enumerate(zip(self._shapes, self.modes, strict=True)):
            slots.append(Slot(number, number, column, mode, self.kernels[number]))
            column += shape.dim
        return slots

    def _described(self, slots: Sequence[Slot]) -> Described:
        return described(self._shapes, self._places, slots, self._limits)

    def _features_asked(self) -> int:
        """How many tables' bags there are in the indices of a usual call."""
        return len(self.names)

    def _told(self, groups: Sequence[int], features: int, columns: int) -> list[int]:
        """The operator's numbers (csrc/lookup.h) of a call of `Described.groups`."""
        return [features, columns, self._output_type, *groups]

    def _repacked(self) -> None:
        self._columns = sum(self._shapes[slot.table].dim for slot in self._slots())
        self._adds_up = all(mode == "sum" for mode in self.modes)
        self.output_dtype = self._asked_dtype or _usual_output(self._shapes)
        self._output_type = OUTPUT_TYPES.index(self.output_dtype)
        self._by_kernels: dict[Any, _Calls] = {}  # and limits
        self._describe()

    @torch.inference_mode(mode=False)
    def _describe(self) -> None:
        by = self.kernels, self._limits
        if by not in self._by_kernels:
            together = self._described(self._slots())
            of_each = enumerate(zip(self.modes, self.kernels, strict=True))
            alone = [self._described([Slot(n, 0, 0, mode, kernel)]) for n, (mode, kernel) in of_each]
            widths = [shape.dim for shape in self._shapes]
            device = self.storage.device
            numbers = self._told(together.groups, self._features_asked(), self._columns)
            of_alone = [self._told(one.groups, 1, width) for one, width in zip(alone, widths, strict=True)]
            self._by_kernels[by] = _Calls(
                together.words.to(device),
                numbers_of(numbers),
                torch.cat([one.words for one in alone]).to(device),
                # A tensor for each would be a file of its own in every process that is handed the module.
                [Numbers(listed, None) for listed in of_alone],
            )
        descriptors, self._numbers, alone_descriptors, self._alone_numbers = self._by_kernels[by]
        self.register_buffer("descriptors", descriptors, persistent=False)
        self.register_buffer("alone", alone_descriptors, persistent=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state.get("_numbers"), Numbers):
            raise RuntimeError("embedding_kernels: what another version pickled has to be made anew by this.")
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    # A list or dict of tables, each callable as the nn.EmbeddingBag that it was.

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, table: int | str) -> Table: ...
    @overload
    def __getitem__(self, table: slice) -> list[Table]: ...
    def __getitem__(self, table: int | str | slice) -> Table | list[Table]:
        return self.values()[table] if isinstance(table, slice) else Table(self, self._number(table))

    def __iter__(self) -> Iterator[Any]:
        """The tables, as those of an nn.ModuleList."""
        return iter(self.values())

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def keys(self) -> Sequence[str]:
        """The tables' names."""
        return self.names

    def values(self) -> list[Table]:
        """The tables."""
        return [Table(self, number) for number in range(len(self))]

    def items(self) -> list[tuple[str, Table]]:
        """Names and tables."""
        return list(zip(self.names, self.values(), strict=True))

    def extra_repr(self) -> str:
        """What print(module) shows."""
        types = sorted({shape.row_type for shape in self._shapes})
        rows = sum(shape.rows for shape in self._shapes)
        return f"{len(self)} tables, {rows} rows of {', '.join(types)}, on_bad_index={self.on_bad_index!r}"


def require_known(on_bad_index: str) -> None:
    """ValueError for what is none."""
    if on_bad_index not in ("count", "assert", "ignore"):
        raise ValueError(f'on_bad_index is "count", "assert" or "ignore", not {on_bad_index!r}.')


def _modes(tables: Sequence[Any], asked: Mode | Sequence[Mode] | None) -> tuple[str, ...]:
    own = [table.mode if isinstance(table, nn.EmbeddingBag) else "sum" for table in tables]
    return _of_each(len(tables), own if asked is None else asked, "mode", tuple(MODES))


def kernels_of(count: int, asked: Kernel | Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Of each of so many tables; ValueError for what does not fit."""
    return cast(tuple[Kernel, ...], _of_each(count, asked, "kernel", KERNELS))


def _of_each(count: int, asked: str | Sequence[str], what: str, known: Sequence[str]) -> tuple[str, ...]:
    """One for all, or one for each."""
    listed = asked if isinstance(asked, Sequence) else ()
    found = (asked,) * count if isinstance(asked, str) else tuple(listed)
    if len(found) != count or any(one not in known for one in found):
        raise ValueError(
            f"{what}: one of {', '.join(known)}, or a list of {count}, one for each table; got {asked!r}."
        )
    return found


def _usual_output(shapes: Sequence[Shape]) -> torch.dtype:
    types = {shape.row_type for shape in shapes}
    if types <= {"int8", "int4"}:
        return torch.float16
    return DTYPES[types.pop()] if len(types) == 1 else torch.float32
