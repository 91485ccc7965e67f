"""Lookups in many tables at once, for inference: `embedding_bags` and the module `EmbeddingBags`.

On CUDA a design that takes all tables computes them in one launch, once `harness.patch.apply` was given one.
Elsewhere, and for what the design does not compute, PyTorch's own operators answer table by table; there the
GPU is waited for once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness import patch
from harness.errors import BadInputError
from harness.patch.quantise import LEVELS, Mode, QuantisedTables, QuantisedType, quantise
from harness.patch.rows import padded, row_bytes

_MODES: dict[str, int] = {"sum": 0, "mean": 1, "max": 2}
_KIND = "quantised_as"
"""Buffer int64 [2] of quantised tables: the largest q, columns."""
_KINDS = {levels: name for name, levels in LEVELS.items()}

# Loaded here and not by the first lookup, which torch.compile may be tracing.
_of_floats: Callable[..., Tensor] = patch._load().embedding_bags.default
_of_quantised: Callable[..., Tensor] = patch._load().quantised_embedding_bags.default


def embedding_bags(
    weights: Sequence[Tensor] | QuantisedTables,
    indices: Tensor,
    offsets: Tensor,
    *,
    mode: Mode | None = None,
    per_sample_weights: Tensor | None = None,
    output_dtype: torch.dtype | None = None,
    batch_sizes: Sequence[int] | None = None,
) -> Tensor:
    """The bags of every table, side by side: [bags, sum of dims].

    `weights`: tables [rows, dim], of any numbers of rows and columns and one dtype (float32, float16,
    bfloat16) on one device; or quantised ones, of one dim. `indices` [n], int32 or int64: row numbers, table
    after table and bag after bag. `offsets` [tables × bags + 1]: where each bag begins in `indices`, from 0
    on, and at the end n.
    An empty bag is zero. `mode`: by default sum, of quantised tables that say their mode that one.
    `per_sample_weights` [n], in mode sum alone: a factor for each row, used as float32.
    `output_dtype`: by default that of the tables, of quantised ones float16; sums are made in float32.
    `batch_sizes`: how many bags each table has, to be checked. Without it the offsets' count says so, which
    cannot tell tables of three bags and one from two tables of two. What mode max makes of a NaN is not
    defined.

    Raises ValueError and TypeError for arguments that do not fit. A backward pass that comes here raises
    RuntimeError: there are no gradients.

    On the CPU a row number outside its table raises IndexError, and offsets that do not ascend from 0 to n
    raise ValueError. On CUDA nobody waits to look: a row number outside its table, or offsets that fall or
    leave the indices, are a device-side assert, as in PyTorch, and indices before the first offset or behind
    the last are not looked up. So a captured graph may be replayed with fewer indices than its tensor holds.
    """
    if isinstance(weights, QuantisedTables):
        number = _number_of(_mode_of(weights, mode, ValueError))
        _check_batch_sizes(batch_sizes, len(weights.data), offsets)
        rows = (list(weights.data), list(weights.scale_bias), weights.dtype, weights.dim)
        return _of_quantised(*rows, indices, offsets, number, per_sample_weights, output_dtype)
    tables = list(weights)
    _check_tables(tables)
    _check_batch_sizes(batch_sizes, len(tables), offsets)
    return _of_floats(tables, indices, offsets, _number_of(mode or "sum"), per_sample_weights, output_dtype)


class EmbeddingBags(nn.Module):
    """Several embedding tables that are looked up together, for inference.

    Made of `nn.EmbeddingBag` modules, whose mode it takes, of tables [rows, dim], or of quantised ones; it
    holds no copy. Of modules (and of tables that are parameters) it holds the very parameters, so `.to()`,
    `.half()` and updates in either place are seen in both. Tables that are plain tensors become parameters
    that require no gradient, over the same memory until `.to()` or the like moves this module away from it;
    so it is with quantised ones, which are buffers.

    There are no gradients: a backward pass that comes here raises RuntimeError. Train the modules themselves.
    """

    def __init__(
        self,
        tables: Iterable[nn.EmbeddingBag | Tensor] | QuantisedTables,
        *,
        mode: Mode | None = None,
        output_dtype: torch.dtype | None = None,
    ) -> None:
        """`mode`: by default that of the modules, of tables sum. `output_dtype`: as in `embedding_bags`.

        BadInputError where modules compute what no joint lookup does: another mode, `padding_idx`,
        `max_norm`, a forward of their own, hooks, a weight made anew for every call.
        """
        super().__init__()
        if mode is not None and mode not in _MODES:
            raise BadInputError(f"EmbeddingBags knows the modes {', '.join(_MODES)}; got {mode!r}.")
        self.output_dtype = output_dtype
        self._row_type: QuantisedType | None = None
        self._names: dict[str, list[str]] = {}
        if isinstance(tables, QuantisedTables):
            self.mode = _mode_of(tables, mode, BadInputError)
            self._row_type, self.embedding_dim = tables.dtype, tables.dim
            self._count = len(tables.data)
            self._names = {
                kind: [f"{kind}_{n}" for n in range(self._count)] for kind in ("data", "scale_bias")
            }
            for number, (data, scale_bias) in enumerate(zip(tables.data, tables.scale_bias, strict=True)):
                self.register_buffer(self._names["data"][number], padded(data))
                # As plain bits, which `.float()` and `.bfloat16()` of a whole model leave alone.
                self.register_buffer(self._names["scale_bias"][number], scale_bias.view(torch.int16))
            # Which bytes these are; rows are padded, so their width does not say it.
            self.register_buffer(_KIND, torch.tensor([LEVELS[tables.dtype], tables.dim]))
            return
        listed = _listed(tables)
        self.mode = _common_mode(listed, mode)
        weights = [_parameter(number, table) for number, table in enumerate(listed)]
        self._count = len(weights)
        self._names = {"weight": [f"weight_{n}" for n in range(self._count)]}
        for number, weight in enumerate(weights):
            if weight.dim() != 2 or weight.size(1) == 0:
                raise BadInputError(
                    f"EmbeddingBags holds tables [rows, dim]: table {number} is {list(weight.shape)}."
                )
            self.register_parameter(self._names["weight"][number], weight)
        self.embedding_dim = max(weight.size(1) for weight in weights)

    def forward(
        self,
        indices: Tensor,
        offsets: Tensor,
        per_sample_weights: Tensor | None = None,
        batch_sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """As `embedding_bags`."""
        _check_batch_sizes(batch_sizes, self._count, offsets)
        asked = (indices, offsets, _number_of(self.mode), per_sample_weights, self.output_dtype)
        if self._row_type is None:
            return _of_floats(self._held("weight"), *asked)
        data, scale_bias = self._held("data"), self._held("scale_bias")
        return _of_quantised(data, scale_bias, self._row_type, self.embedding_dim, *asked)

    def tables(self) -> list[Tensor] | QuantisedTables:
        """The tables as `embedding_bags` takes them, sharing memory with this module."""
        if self._row_type is None:
            return self._held("weight")
        width = row_bytes(self._row_type, self.embedding_dim)
        return QuantisedTables(
            self._row_type,
            self.embedding_dim,
            tuple(data[:, :width] for data in self._held("data")),
            tuple(bits.view(torch.float16) for bits in self._held("scale_bias")),
            self.mode,
        )

    def quantise(self, dtype: QuantisedType) -> EmbeddingBags:
        """A module with the same tables quantised to "int8" or "int4"; this one stays as it is."""
        tables = self.tables()
        if isinstance(tables, QuantisedTables):
            raise BadInputError(f"These tables are quantised already, to {tables.dtype}.")
        return EmbeddingBags(quantise(tables, dtype), mode=self.mode, output_dtype=self.output_dtype)

    def extra_repr(self) -> str:
        """What print(module) shows."""
        kind = f", {self._row_type}" if self._row_type else ""
        widths = {self.embedding_dim} if kind else {table.size(1) for table in self._held("weight")}
        dims = (
            f"embedding_dim={self.embedding_dim}" if len(widths) == 1 else f"embedding_dims={sorted(widths)}"
        )
        return f"{self._count} tables, {dims}, mode={self.mode!r}{kind}"

    def _held(self, kind: str) -> list[Tensor]:
        """Every table's tensor of this kind, as it is now; nothing is kept from one call to the next."""
        held, names = self._buffers if self._row_type else self._parameters, self._names[kind]
        try:
            return [cast(Tensor, held[name]) for name in names]
        except KeyError:  # where PyTorch holds them otherwise, in DataParallel say or parametrised
            return [getattr(self, name) for name in names]

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
        """Bytes of another type or width are refused, though they may take as much room."""
        known, given = self._buffers.get(_KIND), state_dict.get(prefix + _KIND)
        if known is not None and given is not None and not given.is_meta and given.tolist() != known.tolist():
            held, other = ([_KINDS[int(levels)], int(dim)] for levels, dim in (known, given))
            error_msgs.append(
                f"{prefix}: rows of {held[0]} and {held[1]} columns are held, and these are of {other[0]} "
                f"and {other[1]}."
            )
            return
        rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if known is not None and prefix + _KIND in missing_keys:  # of an earlier version
            missing_keys.remove(prefix + _KIND)

    def __prepare_scriptable__(self) -> nn.Module:
        """Asked for by torch.jit.script."""
        raise BadInputError("EmbeddingBags is not for torch.jit.script; use torch.jit.trace or torch.export.")


def _mode_of(tables: QuantisedTables, asked: Mode | None, error: type[Exception]) -> Mode:
    if asked and tables.mode and asked != tables.mode:
        raise error(f"These tables are of the mode {tables.mode!r}; leave mode out instead of {asked!r}.")
    return asked or tables.mode or "sum"


def _number_of(mode: str) -> int:
    if mode not in _MODES:
        raise ValueError(f"embedding_bags knows the modes {', '.join(_MODES)}; got {mode!r}.")
    return _MODES[mode]


def _check_tables(tables: list[Any]) -> None:
    """Of the first alone; the operator looks at all of them."""
    if not tables:
        return
    if not isinstance(tables[0], Tensor):
        kind = type(tables[0]).__name__
        raise TypeError(f"embedding_bags takes tables [rows, dim], such as module.weight; got {kind}.")
    if tables[0].dim() != 2:
        shape = list(tables[0].shape)
        raise ValueError(
            f"embedding_bags takes a list of tables [rows, dim]; the first has the shape {shape}."
        )


def _check_batch_sizes(batch_sizes: Sequence[int] | None, count: int, offsets: Tensor) -> None:
    """ValueError where these are not what the offsets are taken for: one number for all `count` tables."""
    if batch_sizes is None:
        return
    if len(batch_sizes) != count:
        raise ValueError(f"embedding_bags got batch sizes of {len(batch_sizes)} tables, and {count} tables.")
    for table, size in enumerate(batch_sizes):
        if size != batch_sizes[0]:
            raise ValueError(
                f"embedding_bags looks up as many bags in every table: table {table} has {size}, table 0 "
                f"{batch_sizes[0]}. Call it for each batch size."
            )
    if offsets.numel() != count * batch_sizes[0] + 1:
        raise ValueError(
            f"embedding_bags takes tables * bags + 1 offsets; {offsets.numel()} are not that for {count} "
            f"tables of {batch_sizes[0]} bags."
        )


def _listed(tables: Any) -> list[nn.EmbeddingBag | Tensor]:
    """All of them, whatever they come in; BadInputError where these are not modules or tensors."""
    if isinstance(tables, Tensor | nn.EmbeddingBag):
        raise BadInputError("EmbeddingBags takes a list of tables; put a single one into brackets.")
    listed = list(tables)
    if not listed:
        raise BadInputError("EmbeddingBags needs at least one table.")
    for number, table in enumerate(listed):
        if not isinstance(table, nn.EmbeddingBag | Tensor):
            kind = type(table).__name__
            raise BadInputError(
                f"EmbeddingBags is made of nn.EmbeddingBag modules or tables; number {number} is {kind}."
            )
    return listed


def _parameter(number: int, table: nn.EmbeddingBag | Tensor) -> nn.Parameter:
    """The parameter itself, or one over the same memory."""
    weight = table.weight if isinstance(table, nn.EmbeddingBag) else table
    if isinstance(weight, nn.Parameter):
        return weight
    if weight.requires_grad:
        raise BadInputError(
            f"EmbeddingBags is for inference, and table {number} requires a gradient without being a "
            "parameter; give table.detach()."
        )
    return nn.Parameter(weight, requires_grad=False)


def _common_mode(tables: Sequence[nn.EmbeddingBag | Tensor], asked: Mode | None) -> Mode:
    """The mode of all; BadInputError where modules differ in it, or do what no joint lookup does."""
    modules = {n: table for n, table in enumerate(tables) if isinstance(table, nn.EmbeddingBag)}
    mode, whose = asked, "the one asked for is"
    for number, module in modules.items():
        if mode is None:
            mode, whose = cast(Mode, module.mode), f"module {number} has"
        if module.mode != mode:
            raise BadInputError(
                f"EmbeddingBags looks its tables up in one mode: module {number} has {module.mode!r}, "
                f"{whose} {mode!r}. Give module.weight to look a table up in another mode than its module's."
            )
        _check_module(number, module)
    return mode or "sum"


def _check_module(number: int, module: nn.EmbeddingBag) -> None:
    """BadInputError where a module computes anything but the sum, mean or maximum of its table's rows."""
    for option in ("padding_idx", "max_norm"):
        if getattr(module, option) is not None:
            raise BadInputError(f"EmbeddingBags has no {option}, which module {number} sets.")
    if getattr(module.forward, "__func__", None) is not nn.EmbeddingBag.forward:
        raise BadInputError(
            f"EmbeddingBags would not call the forward of {type(module).__name__}, which module {number} is."
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise BadInputError(f"EmbeddingBags would not call the forward hooks that module {number} has.")
    if not isinstance(module.weight, nn.Parameter):
        raise BadInputError(
            f"EmbeddingBags would not see changes of the weight of module {number}, which is no parameter "
            "but made of others (pruned or parametrised)."
        )
