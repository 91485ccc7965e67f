"""The patched PyTorch: EmbeddingBag on CUDA runs a compiled design.

`apply(folder)` puts a compiled design in the place of PyTorch's own kernels, for every caller of
`torch.nn.EmbeddingBag` and `torch.embedding_bag` in this process; `remove()` puts them back. A design that
takes all tables in one launch serves `embedding_bags` and the module `EmbeddingBags` instead; it and another
one may be applied at the same time. What a design does not compute (mode max, other dtypes) still goes to
PyTorch's own kernel; `calls()` says which ran. What runs in compiled, exported and packaged models, and what
is refused: docs/patch.md.

Lookups may come from any number of threads, on any stream, inside the capture of a CUDA graph too. `apply`
and `remove` change PyTorch's table of kernels, which PyTorch reads without a lock: call them while no lookup
runs.

This module imports torch only where it needs it, for `import torch` itself imports this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.errors import BadInputError, HarnessError
from harness.patch import manifest as manifests
from harness.patch.definition import chosen, define

if TYPE_CHECKING:
    from torch import Tensor

    from harness.patch.exported import by_dispatcher
    from harness.patch.tables import EmbeddingBags, embedding_bags

__all__ = [
    "EmbeddingBags",
    "active",
    "apply",
    "autoload",
    "build_op",
    "by_dispatcher",
    "calls",
    "embedding_bags",
    "prepare",
    "remove",
    "reset_persisting_l2",
    "set_hot_rows",
    "set_persisting_l2_bytes",
]

_operators: Any = None  # torch.ops.embedding_harness, once its library is loaded
_applied: manifests.Manifest | None = None  # in the place of EmbeddingBag
_applied_tables: manifests.Manifest | None = None  # serves embedding_bags


def apply(folder: Path, tunables: Mapping[str, int] | None = None) -> None:
    """From now on EmbeddingBag on CUDA runs the compiled design in `folder`, instead of any other design.

    So does `embedding_bags`, if it is a design that takes all tables; EmbeddingBag then stays as it is.

    `tunables` changes the defaults of the manifest. Those that are template arguments choose among the
    compiled kernels; the others (pinned rows, say) are the caller's to act on. CUDA is not started before the
    first lookup, which raises RuntimeError where the GPU or its driver cannot run any of the cubins.

    Raises BadInputError where the folder, its files or a tunable is wrong.
    """
    _apply(Path(folder), tunables or {}, "CUDA")


def remove() -> None:
    """Makes PyTorch as it was before `apply` and forgets hot rows. Does nothing where nothing is applied."""
    global _applied, _applied_tables
    _applied = _applied_tables = None
    if _operators is not None:
        _operators.remove()


def active() -> str | None:
    """The name of the design that is applied; of two, that of EmbeddingBag first: "vectorized + fused"."""
    return " + ".join(found.design for found in (_applied, _applied_tables) if found) or None


def calls() -> dict[str, Any]:
    """What ran since the last `apply`.

    `design` and `stock`: how many calls each served; one of `embedding_bags` counts once. `kernel` and
    `arch`: the symbol and architecture of the design's last kernel, as its manifest lists them (empty: none
    yet). `fallback`: why the last call that PyTorch's own kernel served went there (empty: none did);
    `embedding_bags` goes there table by table.
    """
    if _operators is None:
        return {"design": 0, "stock": 0, "kernel": "", "arch": "", "fallback": ""}
    return dict(zip(("design", "stock", "kernel", "arch", "fallback"), _operators.calls(), strict=True))


def set_hot_rows(weight: Tensor, rows: Tensor | None, renew_every: int = 1) -> None:
    """Names the rows of a table that the applied design is to pin in L2, or with None forgets them.

    `weight`: the table [rows, dim] on its GPU; a detached alias of it is the same table, a copy is not.
    `rows`: row numbers [n], of any integer type, anywhere; copied to the GPU here, once. `renew_every`: the
    design prepares before the first and then every so many lookups of this table; 0: only when `prepare` is
    called. A CUDA graph captured meanwhile reads the rows of its capture: keep them set while it is replayed.

    Raises BadInputError where the applied design pins nothing, or a row is not in the table.
    """
    import torch

    if rows is None:
        if _operators is not None:
            _operators.set_hot_rows(weight, None, 0)
        return
    if _applied is None or not _applied.prepares:
        pinning_nothing = f"design {_applied.design} prepares nothing" if _applied else "no design is applied"
        raise BadInputError(f"Hot rows would pin nothing: {pinning_nothing}.")
    if weight.dim() != 2 or weight.layout != torch.strided or (weight.size(1) > 1 and weight.stride(1) != 1):
        raise BadInputError("Hot rows need a table [rows, dim] whose rows are contiguous.")
    if rows.dim() != 1 or rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise BadInputError(
            f"Hot rows are one row number each, an integer tensor [n]; got {rows.dtype} {list(rows.shape)}."
        )
    if renew_every < 0:
        raise BadInputError(f"renew_every is {renew_every}; it counts lookups, 0 for none.")
    # A copy in any case: the caller's tensor may change later. Reading the extremes waits until it is there.
    kept = rows.detach().to(device=weight.device, dtype=torch.int64, copy=True).contiguous()
    if kept.numel():
        low, high = int(kept.min()), int(kept.max())
        if low < 0 or high >= weight.size(0):
            raise BadInputError(
                f"Hot row {low if low < 0 else high} is not in the table, which has {weight.size(0)} rows."
            )
    _operators.set_hot_rows(weight, kept, renew_every)


def prepare(weight: Tensor, rows: Tensor | None = None) -> None:
    """Pins the table's hot rows now, on the current stream; RuntimeError where there are none.

    `rows`: these in place of those that are set: int64 [n], contiguous, on the table's GPU. They are taken as
    they are, so that nothing has to be waited for: that each is in the table is the caller's to see to.
    """
    _load().prepare(weight, rows)


def reset_persisting_l2(device: int | None = None) -> None:
    """Makes every pinned line of L2 an ordinary one again. `device`: the current one unless given."""
    _load().reset_persisting_l2(_device(device))


def set_persisting_l2_bytes(count: int, device: int | None = None) -> int:
    """Sets aside so much of L2 for lines that persist; returns what the driver granted, in bytes."""
    granted: int = _load().set_persisting_l2_bytes(_device(device), count)
    return granted


def build_op(out: Path | None = None) -> Path:
    """Builds the operator for this PyTorch into `out`, or into the cache unless it is there; see `build`."""
    from harness.patch import build

    return build.build_op(out)


def autoload() -> None:
    """Called by `import torch` (entry point `torch.backends`): applies the design that HARNESS_DESIGN names.

    That is the folder of a compiled design; unset, nothing happens. Starts no CUDA. A wrong value makes
    `import torch` fail with the reason.
    """
    if folder := os.environ.get("HARNESS_DESIGN"):
        try:
            apply(Path(folder))
        except HarnessError as error:
            failure = type(error)(f"HARNESS_DESIGN={folder}: {error}")
            _tell_alone(failure)
            raise failure from None


def _tell_alone(failure: HarnessError) -> None:
    """Where nobody catches it, the failure is told without the traceback that PyTorch wraps round it."""
    usual = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if error.__cause__ is failure:
            print(failure, file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = tell


def _apply(folder: Path, tunables: Mapping[str, int], key: str) -> None:
    """`key`: the dispatch key whose kernels are replaced. Tests without a GPU replace those of "CPU"."""
    global _applied, _applied_tables
    manifest = manifests.read(folder)
    chosen(manifest, tunables, folder)  # says what is wrong before anything is built
    operators = _load()
    identity = define(operators, manifest, tunables, folder)
    if manifest.all_tables:
        operators.apply_tables(identity)
        _applied_tables = manifest
    else:
        operators.apply(identity, key)
        _applied = manifest


def _load() -> Any:
    """The operators, of the library that HARNESS_OP_LIBRARY names or else of one built if need be."""
    global _operators
    if _operators is None:
        import torch

        named = os.environ.get("HARNESS_OP_LIBRARY")
        library = Path(named) if named else build_op()
        if not library.is_file():
            raise BadInputError(f"HARNESS_OP_LIBRARY={library}: is not a file.")
        try:
            torch.ops.load_library(str(library))
        except OSError as error:
            raise BadInputError(
                f"{library}: was not built for this PyTorch ({torch.__version__}); build it again with "
                f"python -m harness.patch.build ({error.__cause__ or error})."
            ) from error
        _operators = torch.ops.embedding_harness
    return _operators


def _device(device: int | None) -> int:
    """The device's number; starts CUDA, so that what follows finds PyTorch's context."""
    import torch

    torch.cuda.init()
    return torch.cuda.current_device() if device is None else device


def __getattr__(name: str) -> Any:
    """What needs torch when it is imported, which this module may not be the first to do."""
    if name in ("EmbeddingBags", "embedding_bags"):
        from harness.patch import tables

        return getattr(tables, name)
    if name == "by_dispatcher":
        from harness.patch.exported import by_dispatcher

        return by_dispatcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
