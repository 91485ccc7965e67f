"""Lookups in many tables at once, for inference: `embedding_bags` and the module `EmbeddingBags`.

On CUDA a design that takes all tables computes them in one launch, once `harness.patch.apply` was given one.
Elsewhere, and for what the design does not compute, PyTorch's own operators answer table by table; there the
GPU is waited for once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from harness import patch
from harness.errors import BadInputError
from harness.patch.quantise import QuantisedTables, QuantisedType, aligned, quantise, row_bytes

Mode = Literal["sum", "mean", "max"]
_MODES: dict[str, int] = {"sum": 0, "mean": 1, "max": 2}


def embedding_bags(
    weights: Sequence[Tensor] | QuantisedTables,
    indices: Tensor,
    offsets: Tensor,
    *,
    mode: Mode = "sum",
    per_sample_weights: Tensor | None = None,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """The bags of every table, side by side: [bags, tables × dim].

    `weights`: tables [rows, dim], of any numbers of rows, of one dim and dtype (float32, float16, bfloat16)
    on one device; or quantised ones. `indices` [n], int32 or int64: row numbers, table after table and bag
    after bag. `offsets` [tables × bags + 1]: where each bag begins in `indices`, and at the end n. An empty
    bag is zero. `per_sample_weights` [n], in mode sum alone: a factor for each row, used as float32.
    `output_dtype`: by default that of the tables, of quantised ones float16; sums are made in float32.
    What mode max makes of a NaN is not defined.

    Raises ValueError and TypeError for arguments that do not fit, RuntimeError where gradients are recorded
    and a table requires one. A row number outside its table raises IndexError on the CPU; on CUDA
    it is a device-side assert, as in PyTorch.
    """
    if mode not in _MODES:
        raise ValueError(f"embedding_bags knows the modes {', '.join(_MODES)}; got {mode!r}.")
    if isinstance(weights, QuantisedTables):
        data, scales = list(weights.data), list(weights.scale_bias)
        row_type, dim = str(weights.dtype), weights.dim
    else:
        data, scales, row_type = list(weights), [], ""
        dim = _columns(data[0]) if data else 0  # of the first alone; the operator looks at all of them
    result: Tensor = patch._load().embedding_bags.default(
        data, scales, row_type, dim, indices, offsets, _MODES[mode], per_sample_weights, output_dtype
    )
    return result


class EmbeddingBags(nn.Module):
    """Several embedding tables that are looked up together, for inference.

    Made of `nn.EmbeddingBag` modules, whose mode it takes, of tables [rows, dim], or of quantised ones. Holds
    them as buffers, shared with what it was made of, so `.to()`, `state_dict` and the like work as ever.
    """

    def __init__(
        self,
        tables: Sequence[nn.EmbeddingBag | Tensor] | QuantisedTables,
        *,
        mode: Mode | None = None,
        output_dtype: torch.dtype | None = None,
    ) -> None:
        """`mode`: by default that of the modules, of tables sum. `output_dtype`: as in `embedding_bags`."""
        super().__init__()
        if mode is not None and mode not in _MODES:
            raise BadInputError(f"EmbeddingBags knows the modes {', '.join(_MODES)}; got {mode!r}.")
        self.output_dtype = output_dtype
        self._row_type: QuantisedType | None = None
        self._views: QuantisedTables | None = None
        self._viewed: list[Tensor | None] = []
        if isinstance(tables, QuantisedTables):
            self.mode = mode or "sum"
            self._row_type, self.embedding_dim = tables.dtype, tables.dim
            for number, (data, scale_bias) in enumerate(zip(tables.data, tables.scale_bias, strict=True)):
                self.register_buffer(f"data_{number}", _with_padding(data))
                # As plain bits, which `.float()` and `.bfloat16()` of a whole model leave alone.
                self.register_buffer(f"scale_bias_{number}", scale_bias.view(torch.int16))
            return
        _check_kinds(tables)
        self.mode = mode or _common_mode(tables)
        weights = [table.weight if isinstance(table, nn.EmbeddingBag) else table for table in tables]
        self.embedding_dim = weights[0].size(-1) if weights[0].dim() else 0
        for number, weight in enumerate(weights):
            if weight.dim() != 2 or weight.size(1) != self.embedding_dim:
                raise BadInputError(
                    f"EmbeddingBags holds tables [rows, dim] of one dim: table {number} is "
                    f"{list(weight.shape)}, table 0 {list(weights[0].shape)}. Make a module for each dim."
                )
            self.register_buffer(f"weight_{number}", weight.detach())

    def forward(self, indices: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None) -> Tensor:
        """As `embedding_bags`."""
        return embedding_bags(
            self.tables(),
            indices,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            output_dtype=self.output_dtype,
        )

    def tables(self) -> list[Tensor] | QuantisedTables:
        """The tables as `embedding_bags` takes them."""
        buffers = list(self._buffers.values())
        if self._row_type is None:
            return [buffer for buffer in buffers if buffer is not None]
        # Made again only where a buffer gave its place to another tensor, as in `.to()`.
        if self._views is None or any(now is not was for now, was in zip(buffers, self._viewed, strict=True)):
            count, width = len(buffers) // 2, row_bytes(self._row_type, self.embedding_dim)
            self._views = QuantisedTables(
                self._row_type,
                self.embedding_dim,
                tuple(self.get_buffer(f"data_{n}")[:, :width] for n in range(count)),
                tuple(self.get_buffer(f"scale_bias_{n}").view(torch.float16) for n in range(count)),
            )
            self._viewed = buffers
        return self._views

    def quantise(self, dtype: QuantisedType) -> EmbeddingBags:
        """A module with the same tables quantised to "int8" or "int4"; this one stays as it is."""
        tables = self.tables()
        if isinstance(tables, QuantisedTables):
            raise BadInputError(f"These tables are quantised already, to {tables.dtype}.")
        return EmbeddingBags(quantise(tables, dtype), mode=self.mode, output_dtype=self.output_dtype)

    def extra_repr(self) -> str:
        """What print(module) shows."""
        count = len(self._buffers) // (2 if self._row_type else 1)
        kind = f", {self._row_type}" if self._row_type else ""
        return f"{count} tables, embedding_dim={self.embedding_dim}, mode={self.mode!r}{kind}"


def _columns(table: Any) -> int:
    """The columns of what should be a table [rows, dim]."""
    if not isinstance(table, Tensor):
        kind = type(table).__name__
        raise TypeError(f"embedding_bags takes tables [rows, dim], such as module.weight; got {kind}.")
    if table.dim() != 2:
        shape = list(table.shape)
        raise ValueError(
            f"embedding_bags takes a list of tables [rows, dim]; the first has the shape {shape}."
        )
    return table.size(1)


def _check_kinds(tables: Any) -> None:
    """BadInputError where these are not modules or tensors, in a list."""
    if isinstance(tables, Tensor):
        raise BadInputError("EmbeddingBags takes a list of tables; put a single one into brackets.")
    if not tables:
        raise BadInputError("EmbeddingBags needs at least one table.")
    for number, table in enumerate(tables):
        if not isinstance(table, nn.EmbeddingBag | Tensor):
            kind = type(table).__name__
            raise BadInputError(
                f"EmbeddingBags is made of nn.EmbeddingBag modules or tables; number {number} is {kind}."
            )


def _with_padding(data: Tensor) -> Tensor:
    """The whole rows of a table, padding included, which a copy of the values alone would leave out."""
    data = aligned(data)
    whole = (len(data), data.stride(0))
    reach = data.untyped_storage().nbytes() - data.storage_offset()
    if whole[0] * whole[1] > reach:  # a part of something else, whose last row has nothing behind it
        data = aligned(data.clone(memory_format=torch.contiguous_format))
    return data.as_strided(whole, (whole[1], 1))


def _common_mode(tables: Sequence[nn.EmbeddingBag | Tensor]) -> Mode:
    """The mode of modules; BadInputError where they differ, or do what no joint lookup does."""
    modules = [table for table in tables if isinstance(table, nn.EmbeddingBag)]
    for number, module in enumerate(modules):
        if module.mode != modules[0].mode:
            raise BadInputError(
                f"EmbeddingBags looks its tables up in one mode: module {number} has {module.mode!r}, "
                f"module 0 {modules[0].mode!r}."
            )
        for option in ("padding_idx", "max_norm"):
            if getattr(module, option) is not None:
                raise BadInputError(f"EmbeddingBags has no {option}, which module {number} sets.")
    return cast(Mode, modules[0].mode) if modules else "sum"
