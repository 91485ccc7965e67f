"""What `harness tune` gives `embedding_kernels.tune`: a model's tables, and batches of its traffic.

The package is one of its own, which is imported here alone, and where it is needed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import models
from harness.errors import BadInputError, MachineError
from harness.experiment import SYNTHETIC_DATASETS
from harness.groups import OWN_TRAFFIC
from harness.records import Cell, Dataset, Timing, Workload
from harness.text import shown
from harness.validation import validated

_SPARE = 1.1
"""Of what tables and batches take, for all that is made beside them."""


@dataclass(frozen=True)
class Asked:
    """What is to be tuned."""

    model: models.ModelFile
    work: Workload
    traffic: str
    """A synthetic dataset, or a trace's file or folder."""
    row_types: tuple[str, ...]
    """That rows may be converted to."""
    seed: int

    @property
    def needed_bytes(self) -> float:
        """Of the GPU's memory, at the least: while the tables move into one allocation they are there twice,
        and beside them what they are converted to."""
        converted = (dataclasses.replace(self.work, dtype=each) for each in self.row_types)  # type: ignore[arg-type]
        return _SPARE * (2 * self.work.table_bytes + sum(each.table_bytes for each in converted))

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model.name,
            "tables": self.work.stored_tables,
            "features": self.work.tables,
            "rows_at_most": self.work.rows,
            "dtype": self.work.dtype,
            "mode": self.work.mode,
            "batch": self.work.batch,
            "lookups_per_batch": self.work.all_lookups,
            "traffic": self.traffic,
            "row_types": list(self.row_types),
            "seed": self.seed,
            "gpu_bytes": round(self.needed_bytes),
        }


def asked(
    name: str,
    *,
    traffic: str | None = None,
    batch: int | None = None,
    max_rows: int = 0,
    row_types: Sequence[str] = (),
    seed: int = 0,
) -> Asked:
    """A model by its name or file, held against what can be tuned; BadInputError names what cannot.

    `traffic`: by default the model's own where its tables have any, otherwise "random".
    """
    model = models.read(name)
    raw = model.workload(max_rows) | ({} if batch is None else {"batch": batch})
    work = validated(Workload, raw, f"model {model.name}")
    if problem := work.problem():
        raise BadInputError(f"model {model.name}: {problem}.")
    if work.quantised:
        raise BadInputError(
            f"model {model.name}: dtype: {work.dtype} tables have no lookup of PyTorch's to stand beside; "
            f"make it float32, and allow the rows with --row-type {work.dtype}."
        )
    if traffic is None:
        traffic = OWN_TRAFFIC if model.own_traffic else "random"
    if traffic not in SYNTHETIC_DATASETS and not Path(traffic).exists():
        raise BadInputError(
            f"--traffic {shown(traffic)}: is no file and no trace's folder, nor one of "
            f"{', '.join(SYNTHETIC_DATASETS)}."
        )
    return Asked(model, work, traffic, tuple(dict.fromkeys(row_types)), seed)


def package() -> Any:
    """`embedding_kernels`; MachineError, with the remedy, where it is not there."""
    try:
        import embedding_kernels
    except ImportError as error:
        if error.name == "torch":
            raise
        why = "it is not installed; `make wheel` builds it" if error.name else str(error)
        raise MachineError(f"This needs the package embedding-kernels: {why.rstrip('.')}.") from error
    return embedding_kernels


def tables_of(what: Asked, device: str) -> list[Any]:
    """An nn.EmbeddingBag for each feature, one for those that share a table, of values made from the seed."""
    from torch import nn

    from harness.bench.tables import TableStore

    work = dataclasses.replace(what.work, device=device)  # type: ignore[arg-type]
    weights = TableStore().get(work, what.seed).weights
    bags: dict[int, nn.EmbeddingBag] = {}
    for weight in weights:
        rows, dim = weight.shape
        if id(weight) not in bags:
            bags[id(weight)] = nn.EmbeddingBag(rows, dim, mode=work.mode, _weight=weight)
    return [bags[id(weight)] for weight in weights]


def batches_of(
    what: Asked, device: str, l2_bytes: int | None, most: int | None = None
) -> list[tuple[Any, ...]]:
    """Indices, offsets and perhaps sample weights of as many batches as empty the GPU's L2 cache between two
    turns of one, as far as `rotation` goes; no more than `most`.

    BadInputError where a trace cannot be read or names rows that a table has not.
    """
    import numpy as np

    from harness.bench import batch as batches
    from harness.bench import rotation
    from harness.bench.tables import Tables
    from harness.traces import copies, recorded, replay, sources
    from harness.traces.stretches import Stretches

    work = dataclasses.replace(what.work, device=device)  # type: ignore[arg-type]
    cell = Cell("tune", "fused", "", Dataset(what.traffic), work, Timing(), 0, what.seed)
    with tempfile.TemporaryDirectory(prefix="harness-tune-") as scratch:
        for table in recorded.traces_of(work.groups):
            copies.check(table)
            copies.copy(table, partial(write, Path(scratch)))
        if what.traffic in SYNTHETIC_DATASETS:
            stretches = Stretches.read(cell, Path(scratch))
        else:
            fewest = min(kind.rows for kind in work.kinds)
            found = sources.look_up(what.traffic, fewest, what.seed)
            traces = [np.asarray(found.indices, dtype=np.int64)] * work.tables
            stretches = Stretches(cell, traces, replay.read_bags(cell, Path(scratch)))
    # Of rows that may be converted the narrowest, of which a pass touches the least.
    works = [work, *(dataclasses.replace(work, dtype=each) for each in what.row_types)]  # type: ignore[arg-type]
    narrowest = min(works, key=lambda each: each.row_bytes_of(max(work.dims)))
    planned = rotation.plan(dataclasses.replace(cell, workload=narrowest), stretches, l2_bytes)
    count = min(planned.batches, most or rotation.MOST_IN_A_MODEL)
    given = []
    for number in range(count):
        made = batches.make(cell, stretches, Tables([]), number).asked
        weights = () if made.sample_weights is None else (made.sample_weights,)
        given.append((made.indices, made.offsets, *weights))
    return given


def write(folder: Path, path: str, into: Callable[[Path], object]) -> None:
    """A copy of a trace in a folder that nobody else knows; for `harness.traces.copies.copy`."""
    (folder / path).parent.mkdir(exist_ok=True)
    into(folder / path)


def tune(what: Asked, *, decide_by: str, blocks: int, device: str = "cuda", clock: Any = None) -> Any:
    """The plan, an `embedding_kernels.Plan`. MachineError where this machine cannot measure it.

    `clock` stands in for the GPU's in tests, with `device` "cpu".
    """
    served = package()
    import torch

    l2_bytes = None
    if device == "cuda":
        if not (ready := served.check(device)):
            raise MachineError(ready.why_not)
        free, _ = torch.cuda.mem_get_info()
        if what.needed_bytes > free:
            raise MachineError(
                f"The tables of {what.model.name} need {what.needed_bytes / 1e9:.1f} GB of GPU memory, and "
                f"{free / 1e9:.1f} GB are free; cut them down with --max-rows."
            )
        l2_bytes = int(torch.cuda.get_device_properties(0).L2_cache_size)
    try:
        return served.tune(
            tables_of(what, device),
            batches_of(what, device, l2_bytes),
            row_types=what.row_types,
            decide_by=decide_by,
            blocks=blocks,
            seed=what.seed,
            clock=clock,
        )
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"The GPU has too little memory for {what.model.name}; cut its tables down with --max-rows."
        ) from error
    except RuntimeError as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise MachineError(f"{said.rstrip('.')}.") from error
