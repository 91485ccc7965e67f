"""What is under test: which design or peer answers lookups in this process, and the proof that it did."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from harness import patch
from harness.bench import peer
from harness.bench.batch import Batch, Bind, per_table
from harness.bench.failures import CellError
from harness.bench.peer import Peer
from harness.bench.tables import DTYPES
from harness.patch import manifest
from harness.patch.manifest import Manifest
from harness.records import PYTORCH, STOCK, Cell, KernelFacts, Workload


@dataclass(frozen=True)
class Contestant:
    """What a cell measures, ready to be called."""

    compiled: Manifest | None = None
    """The design in PyTorch's place; None: PyTorch's own kernel, or a peer."""
    peer: Peer | None = None
    tunables: Mapping[str, int] = field(default_factory=dict)
    """Every tunable of the design with its value in this cell."""

    @property
    def prepares(self) -> bool:
        """Whether hot rows are pinned before each lookup."""
        return self.compiled is not None and self.compiled.prepares

    @property
    def values_in_float16(self) -> bool:
        """Whether quantised values are rounded to float16 before they are added up; see `check.reference`."""
        return self.peer is not None and self.peer.values_in_float16

    def copied_bytes(self, work: Workload, batches: int = 1) -> int:
        """Memory that it may take for tables of its own, and for the indices of batches as int32."""
        return 0 if self.peer is None else work.table_bytes + 4 * batches * work.tables * work.lookups

    def binder(self, batch: Batch) -> Bind:
        """Makes of any batch of these tables the calls of a pass: one for each table in turn, or a single one
        for all. What a peer keeps of the tables in a way of its own is made here, once."""
        if self.peer is not None:
            return self.peer.make(batch)
        if self.compiled is not None and self.compiled.all_tables:
            return lambda given: [partial(_all_tables, given)]
        return per_table


def load(cell: Cell) -> Contestant:
    """Puts the cell's design with its tunables into PyTorch, or makes sure that none is in.

    CellError where this process carries another design or peer than the cell asks for. On the CPU PyTorch's
    operator runs in a design's place, for designs are GPU kernels; the record says so.
    """
    folder = os.environ.get("HARNESS_DESIGN")
    on_gpu = cell.workload.device == "cuda"
    if cell.toolchain == PYTORCH:
        if on_gpu and (active := patch.active()):
            raise CellError(
                f"The cell asks for PyTorch as it is, but here {active} is in it: unset HARNESS_DESIGN."
            )
        return Contestant(peer=None if cell.design == STOCK else peer.load(cell.design, cell.tunables))
    wanted = f"{cell.design}@{cell.toolchain}"
    if not folder:
        if not on_gpu:
            return Contestant()
        raise CellError(f"The cell asks for {wanted}, but HARNESS_DESIGN names no compiled design here.")
    compiled = manifest.read(Path(folder))
    if (compiled.design, compiled.toolchain) != (cell.design, cell.toolchain):
        found = f"{compiled.design}@{compiled.toolchain}"
        raise CellError(f"The cell asks for {wanted}, but {found} is what this process carries.")
    if not on_gpu:
        return Contestant()
    if compiled.prepares and "pinned_rows" not in compiled.tunables:
        raise CellError(f"{wanted} prepares, but no tunable pinned_rows says how many rows.")
    patch.apply(Path(folder), cell.tunables)
    return Contestant(compiled, tunables={**compiled.tunables, **cell.tunables})


def confirm(contestant: Contestant) -> KernelFacts:
    """Facts of the kernel that answered every lookup since `load`; CellError where it was not the cell's."""
    compiled = contestant.compiled
    if compiled is None:
        if contestant.peer is not None:
            found = contestant.peer
            bare = KernelFacts(found.name, found.source_hash, found.version, _arch(), 0, 0, 0, 0.0, "")
            return dataclasses.replace(bare, libraries=found.libraries())
        # Of PyTorch's own kernel no compiler tells us more; zeros mean unknown.
        return KernelFacts(PYTORCH, "", f"PyTorch {torch.__version__}", _arch(), 0, 0, 0, 0.0, "")
    ran = patch.calls()
    if ran["stock"] or not ran["design"]:
        why = f": {ran['fallback']}" if ran["fallback"] else ""
        raise CellError(
            f"PyTorch's own kernel, and not {compiled.design}, answered"
            f" {ran['stock']} of {ran['stock'] + ran['design']} lookups{why}."
        )
    entry = next(e for e in compiled.entries if (e.symbol, e.arch) == (ran["kernel"], ran["arch"]))
    return KernelFacts(
        name=compiled.design,
        source_hash=compiled.source_hash,
        compiler=compiled.compiler,
        arch=entry.arch,
        registers=entry.registers,
        spill_bytes=entry.spill_bytes,
        shared_bytes=entry.shared_bytes,
        occupancy=entry.occupancy,
        cubin_sha256=entry.cubin_sha256,
    )


def _arch() -> str:
    if not torch.cuda.is_initialized():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def _all_tables(batch: Batch) -> torch.Tensor:
    """All tables through the design's one launch: [batch, tables * dim]."""
    asked, work = batch.asked, batch.work
    output: torch.Tensor = patch.embedding_bags(
        batch.tables.quantised or batch.weights,
        asked.indices,
        asked.offsets,
        mode=work.mode,
        per_sample_weights=asked.sample_weights,
        output_dtype=DTYPES[work.output_dtype],
    )
    return output


def prepare(batch: Batch, rows: Sequence[torch.Tensor], table: int) -> None:
    """Pins the hot rows of one table, of those that are given for each."""
    patch.prepare(batch.weights[table], rows[table])
