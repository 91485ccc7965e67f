"""Writes runs with made-up figures, for tests alone: plausible in shape, drawn from a formula."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import designs, plan, records
from harness.experiment import PAPER_DATASETS, Experiment
from harness.records import (
    Cell,
    CellRecord,
    Check,
    Environment,
    GpuState,
    KernelFacts,
    Timing,
    Variant,
    Workload,
)
from harness.traces.demand import CACHE_BYTES, Datasets, Demand

DESIGNS = ("baseline", "optmt", "rpf_optmt", "l2p_optmt", "combined")
DISTINCT_SHARE = {"one_item": 2e-6, "high": 0.0405, "medium": 0.205, "low": 0.4621, "random": 0.6321}
SHARE = {"held_out": 0.3, "oracle": 0.9}
BASE_US = {"one_item": 98.0, "high": 130.0, "medium": 190.0, "low": 255.0, "random": 270.0}
FACTOR = {"12.1": (1.0, 0.6, 0.5, 0.57, 0.48), "13.0": (0.6, 0.6, 0.45, 0.5, 0.43)}
REGISTERS = {"12.1": (88, 42, 42, 42, 42), "13.0": (56, 42, 42, 42, 42)}


def experiment(
    toolchain: str = "12.1", *, stock: bool = False, replicates: int = 3, **changes: Any
) -> Experiment:
    """Five designs under one toolchain, and PyTorch unpatched where wanted."""
    arms = tuple(Variant(name, toolchain) for name in DESIGNS) + (
        (Variant("stock", records.PYTORCH),) if stock else ()
    )
    made = Experiment(
        name=f"synthetic-{toolchain}",
        title=f"SYNTHETIC: the paper's designs under NVRTC {toolchain}",
        arms=arms,
        reference=f"baseline@{toolchain}",
        datasets=PAPER_DATASETS,
        replicates=replicates,
    )
    return dataclasses.replace(made, **changes)


def record(cell: Cell, *, passes: int = 40) -> CellRecord:
    """A successful record: a process effect of 0.4 %, passes that wander by 0.5 % round it."""
    digest = hashlib.sha256(f"{cell.id} {cell.seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    tables = cell.workload.tables
    number = DESIGNS.index(cell.design) if cell.design in DESIGNS else None
    factor = FACTOR.get(cell.toolchain, FACTOR["12.1"])[number] if number is not None else 0.38
    if cell.hot_rows == "oracle":
        factor *= 0.9
    centre = BASE_US.get(cell.dataset.name, 200.0) * factor * float(np.exp(rng.normal(0, 0.004)))
    wander = np.cumsum(rng.normal(0, 0.001, passes))
    kernel = centre * np.exp(wander[:, None] + rng.normal(0, 0.004, (passes, tables)))
    samples = {"kernel_us": kernel.ravel().round(3).tolist()}
    if prepares := cell.design in ("l2p_optmt", "combined"):
        prepare = 19.0 * np.exp(rng.normal(0, 0.01, (passes, tables)))
        samples["prepare_us"] = prepare.ravel().round(3).tolist()
    stage = (kernel.sum(axis=1) + (prepare.sum(axis=1) if prepares else 0)) * 1.01
    samples["stage_us"] = stage.round(3).tolist()
    if cell.model is not None:
        samples |= _inferences(stage, rng)
    registers = REGISTERS.get(cell.toolchain, REGISTERS["12.1"])[number] if number is not None else 40
    distinct = DISTINCT_SHARE.get(cell.dataset.name, 0.3) * cell.workload.rows
    return CellRecord(
        cell=cell,
        status="ok",
        samples=samples,
        check=Check(True, 0.31, "table 3, bag 17, column 5: 1.0000001 instead of 1.0", 3_145_728),
        kernel=KernelFacts(
            name=cell.design if cell.design != "stock" else "pytorch",
            source_hash=designs.source_hashes().get(cell.design, ""),
            compiler=f"NVRTC {cell.toolchain}.105" if cell.design != "stock" else "PyTorch 2.11",
            arch="sm_90",
            registers=registers,
            spill_bytes=68 if (cell.toolchain, cell.design) == ("13.0", "optmt") else 0,
            shared_bytes=0,
            occupancy=min(1.0, (65536 // (registers * 256)) * 8 / 64),
            cubin_sha256=hashlib.sha256(cell.variant.label.encode()).hexdigest(),
        ),
        environment=environment(cell),
        gpu=[GpuState(n, 1980, 2619, 48 + n // 20, 410.0, []) for n in (-1, passes // 2, passes)],
        ceilings={
            "stream_gbps": float(3110 + rng.normal(0, 6)),
            "random_rows_gbps": float(3000 + rng.normal(0, 6)),
            "l2_rows_gbps": float(7800 + rng.normal(0, 20)),
            "event_floor_us": 1.4,
        },
        facts={"distinct_rows": distinct, "accesses": 500_000.0, "sampling_s": 0.4, "cell_s": 1.9}
        | ({"pinned_rows": 60_000.0, "pinned_share": SHARE[cell.hot_rows]} if prepares else {}),
        started_at="2001-01-01T00:00:00Z",
        finished_at="2001-01-01T00:00:02Z",
    )


def _inferences(stage: np.ndarray, rng: np.random.Generator) -> dict[str, list[float]]:
    """Three inferences a pass: the stage, MLPs and interaction of 90 µs, eager 60 µs and a tail more."""
    graphs = np.repeat(stage, 3) + 90.0 * np.exp(rng.normal(0, 0.01, 3 * len(stage)))
    parts = {"bottom_us": 20.0, "interaction_us": 40.0, "top_us": 30.0}
    return {
        "e2e_graph_us": graphs.round(3).tolist(),
        "e2e_us": (graphs + 60 + rng.exponential(10.0, len(graphs))).round(3).tolist(),
    } | {name: (us * np.exp(rng.normal(0, 0.01, len(stage)))).round(3).tolist() for name, us in parts.items()}


def asked(dataset: str, work: Workload) -> Demand:
    """What a batch of a dataset asks of the memory system: the larger the cache, the less it must fetch."""
    distinct = max(1.0, min(work.lookups, DISTINCT_SHARE.get(dataset, 0.3) * work.rows) * 0.7)
    repeats = work.lookups - distinct
    row_bytes = work.dim * 4
    return Demand(
        dataset=dataset,
        accesses=500_000.0,
        distinct_rows=DISTINCT_SHARE.get(dataset, 0.3) * work.rows,
        coverage=[(1, 0.001), (60_000, 0.9)],
        lookups=work.lookups,
        row_bytes=row_bytes,
        tables=[0],
        batch_distinct_rows=distinct,
        misses=[(s, distinct + repeats * max(0.0, 1 - s / row_bytes / distinct)) for s in CACHE_BYTES],
    )


def environment(cell: Cell) -> Environment:
    """A GPU that does not exist."""
    return Environment(
        device=cell.workload.device,
        gpu="SYNTHETIC GPU 80GB (no such thing)" if cell.workload.device == "cuda" else "",
        gpu_uuid="GPU-00000000",
        driver="580.00",
        multiprocessors=132,
        l2_bytes=50 * 2**20,
        memory_bytes=80 * 2**30,
        persisting_l2_bytes=32 * 2**20,
        mig=False,
        other_processes=0,
        torch="2.11.0",
        cuda="13.0",
        python="3.11.2",
        cpu="SYNTHETIC CPU",
        runner="docker",
        image=f"embedding-harness/{cell.design}:{cell.toolchain}@sha256:0000",
        git_commit="0123456789abcdef0123456789abcdef01234567",
        git_dirty=False,
        hostname="nowhere",
    )


def cpu_record(cell: Cell) -> CellRecord:
    """A record of PyTorch's operator on the CPU: no GPU, no kernel of ours, no ceilings."""
    made = record(cell, passes=10)
    samples = {name: [value * 40 for value in values] for name, values in made.samples.items()}
    return dataclasses.replace(
        made,
        kernel=None,
        gpu=[],
        ceilings={},
        samples={n: s for n, s in samples.items() if n != "prepare_us"},
    )


def single_launch(cell: Cell) -> CellRecord:
    """A record of a design that takes all tables in one launch, and so has no gaps between launches."""
    made = record(cell)
    stage = np.array(made.samples["stage_us"])
    samples = {"stage_us": made.samples["stage_us"], "kernel_us": (stage / cell.workload.tables).tolist()}
    return dataclasses.replace(made, samples=samples)


def failed(cell: Cell, status: records.Status = "failed", message: str = "", log: str = "") -> CellRecord:
    """A record without a measurement."""
    return CellRecord(cell, status, message or "The kernel did not come back.", log)


def write_run(
    folder: Path,
    what: Experiment,
    make: Callable[[Cell], CellRecord | None] = record,
) -> Path:
    """Writes the folder of a run; `make` gives each cell's record, or None where it was not reached."""
    planned = plan.make(what)
    made = {cell.id: make(cell) for cell in planned.cells}
    # A record is of the cell that was planned, and `make` may have changed that.
    launches = [
        dataclasses.replace(x, cells=tuple(r.cell if (r := made[c.id]) else c for c in x.cells))
        for x in planned.launches
    ]
    planned = plan.Plan(tuple(launches))
    folder.mkdir(parents=True)
    arms = ",\n".join(
        f'    {{ design = "{a.design}", toolchain = "{a.toolchain}", hot_rows = "{a.hot_rows}",'
        f" tunables = {{ {', '.join(f'{key} = {value}' for key, value in a.tunables.items())} }} }}"
        for a in what.arms
    )
    datasets = ", ".join(f'"{name}"' for name in what.datasets)
    (folder / "experiment.toml").write_text(
        f'name = "{what.name}"\ntitle = "{what.title}"\nreference = "{what.reference}"\n'
        f"arms = [\n{arms}\n]\ndatasets = [{datasets}]\n"
    )
    (folder / "plan.json").write_text(records.to_json(planned), encoding="utf-8")
    # Of cells with one workload the experiment's own, or else that of the first point.
    backwards = sorted(planned.cells, key=lambda cell: cell.point, reverse=True)
    first = {(cell.dataset.name, cell.workload): cell for cell in backwards}
    demands = [
        dataclasses.replace(asked(name, work), point=cell.point) for (name, work), cell in first.items()
    ]
    (folder / "datasets.json").write_text(records.to_json(Datasets(demands)))
    for cell in planned.cells:
        (folder / "cells" / cell.id).mkdir(parents=True)
        (folder / "cells" / cell.id / "cell.json").write_text(records.to_json(cell), encoding="utf-8")
        if record := made[cell.id]:
            (folder / "cells" / cell.id / "record.json").write_text(records.to_json(record), encoding="utf-8")
    return folder


CPU = Workload(tables=2, rows=1000, dim=16, batch=16, pooling=8, device="cpu")
QUICK = Timing(warmup_passes=1, min_passes=5, max_passes=10, max_seconds=0.1)
