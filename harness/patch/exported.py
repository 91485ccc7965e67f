"""EmbeddingBag in programs that torch.export made, so that AOTInductor's packages of them run designs too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from harness import patch
from harness.errors import BadInputError


def by_dispatcher(program: ExportedProgram) -> ExportedProgram:
    """The program with every `EmbeddingBag` called through PyTorch's dispatcher.

    A package that `torch._inductor.aoti_compile_and_package` makes of it runs the design that is applied when
    the package runs, and PyTorch's own kernel where none is; a package made of the program as it was always
    runs PyTorch's own. Whoever loads the package must have loaded the operators before: `apply` does, a C++
    program by dlopen of the library that `python -m harness.patch.build` writes. For inference: there is no
    gradient. BadInputError where the program uses more of an `EmbeddingBag` than the pooled rows.
    """
    _check_uses(program)
    operator = patch._load().embedding_bag.default

    def lookup(
        weight: Tensor,
        indices: Tensor,
        offsets: Tensor,
        scale_grad_by_freq: bool = False,
        mode: int = 0,
        sparse: bool = False,
        per_sample_weights: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int = -1,
    ) -> tuple[Any, ...]:
        pooled = operator(
            weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx
        )
        return pooled, None, None, None  # the others are for a backward pass

    decompositions = torch.export.default_decompositions()
    for replaced in (
        torch.ops.aten._embedding_bag.default,
        torch.ops.aten._embedding_bag_forward_only.default,
    ):
        decompositions[replaced] = lookup
    made: ExportedProgram = program.run_decompositions(decompositions)
    return made


def _check_uses(program: ExportedProgram) -> None:
    """What PyTorch's operators return beside the pooled rows is for a backward pass."""
    for node in program.graph.nodes:
        if "embedding_bag" in str(node.target) and any(use.users and use.args[1] for use in node.users):
            raise BadInputError(
                f"{node.name}: this program uses more than the pooled rows, which by_dispatcher leaves out."
            )
