"""The operators of the library in `lib/`, and what torch.compile and backward passes are told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

LIBRARY = Path(__file__).with_name("lib") / "embedding_kernels.so"
if not LIBRARY.is_file():
    raise ImportError(
        f"{LIBRARY} is not built; install the wheel of embedding-kernels, or build it in a checkout with "
        "`python -m kernel_wheel --in-place`."
    )
torch.ops.load_library(str(LIBRARY))

lookup: Callable[..., Tensor] = torch.ops.embedding_kernels.lookup.default
lookup_eager: Callable[..., Tensor] = torch.ops.embedding_kernels.lookup_eager.default._op
"""What the operator's own call from Python calls, without that around it."""
refusal: Callable[[int], str] = torch.ops.embedding_kernels.refusal.default
load: Callable[[int, Sequence[int], int], None] = torch.ops.embedding_kernels.load.default
crowded_clocks: Callable[[int], int] = torch.ops.embedding_kernels.crowded_clocks.default
last_kernel: Callable[[], str] = torch.ops.embedding_kernels.last_kernel.default

OUTPUT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""In the order of the library's numbers for them."""
FAULT_WORDS = 4
"""int64 of a LookupFaults (opt_designs/common/tables_args.h)."""
_NO_GRADIENT = (
    "embedding_kernels is for inference and has no gradient: train the tables with torch.nn.EmbeddingBag, or "
    "call this under torch.no_grad()."
)


class Numbers(NamedTuple):
    """What operators are told of a call's groups of tables (csrc/lookup.h)."""

    listed: list[int]
    tensor: Tensor | None
    """The same, on the CPU wherever the tables are. A call takes less of the host's time for it."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as a tensor, it would be loaded to where the tables are.
        return (Numbers, (self.listed, None)) if self.tensor is None else (numbers_of, (self.listed,))


def numbers_of(listed: list[int]) -> Numbers:
    """In both forms."""
    return Numbers(listed, torch.tensor(listed, dtype=torch.int64, device="cpu"))


@torch.library.register_fake("embedding_kernels::lookup")  # type: ignore[untyped-decorator]
def _shape_of_lookup(
    storage: Tensor,
    tables: Tensor,
    indices: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    faults: Tensor | None,
    numbers: Sequence[int],
) -> Tensor:
    features, columns, output_type, *_ = numbers
    if any(given.device != tables.device for given in (storage, indices, offsets)):
        raise RuntimeError(
            "embedding_kernels: indices and offsets are not on the device of their tables; move them there."
        )
    return tables.new_empty(((offsets.numel() - 1) // features, columns), dtype=OUTPUT_TYPES[output_type])


@torch.library.register_fake("embedding_kernels::lookup_eager")  # type: ignore[untyped-decorator]
def _(*given: Any) -> Tensor:
    *others, numbers = given
    shaped: Tensor = _shape_of_lookup(*others, numbers.tolist())
    return shaped


@torch.library.custom_op("embedding_kernels::lookup_asserting", mutates_args=())
def lookup_asserting(
    storage: Tensor,
    tables: Tensor,
    indices: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    numbers: Sequence[int],
) -> Tensor:
    """`lookup` without `faults`, for graphs: torch.compile (2.13) fails where what an operator may change is
    None."""
    output: Tensor = lookup(storage, tables, indices, offsets, per_sample_weights, None, numbers)
    return output


@lookup_asserting.register_fake
def _(*given: Any) -> Tensor:
    *tensors, numbers = given
    shaped: Tensor = _shape_of_lookup(*tensors, None, numbers)
    return shaped


def _refused(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
    """A graph that may be differentiated is traced as far as here, behind the refusal of `_no_gradient`."""
    return (None,) * 6


lookup_asserting.register_autograd(_refused)


@torch.library.custom_op("embedding_kernels::no_gradient", mutates_args=())
def _no_gradient(gradient: Tensor, wanted_of: Tensor) -> Tensor:
    raise RuntimeError(_NO_GRADIENT)


@_no_gradient.register_fake
def _(gradient: Tensor, wanted_of: Tensor) -> Tensor:
    return torch.empty_like(wanted_of)


class _WithoutGradient(torch.autograd.Function):
    """The identity, in whose place a backward pass finds an error. It must not leave out tables in
    silence."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, wanted_of: Tensor) -> Tensor:
        ctx.save_for_backward(wanted_of)
        ctx.mark_dirty(output)  # itself and no view of it, which nobody may change in place
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (wanted_of,) = ctx.saved_tensors
        return None, _no_gradient(gradients[0], wanted_of)


def refuse_tangent(weights: Tensor) -> None:
    """RuntimeError where a derivative is carried forward with the weights: the operator would drop it."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(weights).tangent is not None:
        raise RuntimeError(_NO_GRADIENT)


def without_gradient(output: Tensor, wanted_of: Tensor) -> Tensor:
    """`output`; a backward pass through it is refused with a message. `wanted_of`: a tensor that requires a
    gradient."""
    return _WithoutGradient.apply(output, wanted_of)  # type: ignore[no-any-return, no-untyped-call]
