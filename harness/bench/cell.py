"""One cell from start to end: memory, tables, check, samples, record."""

from __future__ import annotations

import math
import statistics
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.bench import (
    batch,
    check,
    design,
    dlrm,
    environment,
    failures,
    hot_rows,
    log,
    model_check,
    rotation,
    tables,
    timing,
)
from harness.bench.batch import Prepare
from harness.bench.design import Contestant
from harness.bench.failures import CellError
from harness.bench.gpu import Gpu
from harness.bench.inference import CpuInference, Forward, GpuInference, Inference
from harness.bench.nvml import Watch, throttled_passes
from harness.bench.rotation import Order, Turn
from harness.bench.stopwatch import CpuStopwatch, GpuStopwatch, Stopwatch
from harness.errors import HarnessError
from harness.records import VALUES_WITHIN, Cell, CellRecord, Model, Workload
from harness.traces.stretches import Stretches

THROTTLED_SHARE = 0.2
"""A cell with a larger share of throttled passes than this is inconclusive."""


class Bench:
    """Measures one cell after the other in this process and keeps what they share: the GPU and the tables."""

    def __init__(self, root: Path) -> None:
        """`root`: the run's folder, where trace files lie."""
        self._root = root
        self._tables = tables.TableStore()
        self._gpu: Gpu | None = None
        self._culprit = ""

    def measure(self, cell: Cell) -> CellRecord:
        """The cell's record. Whatever goes wrong is told there; nothing is raised."""
        log.begin()
        begin, started_at = time.monotonic(), _now()
        # Fields of the record, as they become known: those of a cell that fails are kept as far as it came.
        known: dict[str, Any] = {"environment": environment.bare(cell.workload.device), "facts": {}}
        try:
            if self._culprit:
                raise CellError(f"Not measured: {self._culprit} left the GPU unusable for this process.")
            with torch.inference_mode():
                self._measure(cell, known)
        except Exception as error:
            known["status"], known["message"] = failures.describe(error)
            known.pop("samples", None)  # taken, but not by what the cell asks for
            if not isinstance(error, HarnessError):
                log.say(traceback.format_exc())
            self._recover(cell)
        known["facts"]["cell_s"] = time.monotonic() - begin
        log.say(f"{known['status']} after {known['facts']['cell_s']:.2f} s. {known['message']}".rstrip())
        tail = "" if known["status"] == "ok" else log.tail()
        return CellRecord(cell, log_tail=tail, started_at=started_at, finished_at=_now(), **known)

    def _recover(self, cell: Cell) -> None:
        """After a failure: the next cell begins with all the memory, or learns that the GPU is lost."""
        if failures.context_lost():
            self._culprit = self._culprit or f"cell {cell.id}"
        else:
            self._tables.drop()

    def _measure(self, cell: Cell, known: dict[str, Any]) -> None:
        work = cell.workload
        log.say(f"{cell.design}@{cell.toolchain}, {cell.dataset.name}, device: {work.device}")
        if work.weighted and work.mode != "sum":
            raise CellError('workload.weighted: PyTorch takes sample weights with mode = "sum" only.')
        gpu = self._open_gpu() if work.device == "cuda" else None
        known["environment"] = environment.collect(work.device, gpu.nvml if gpu else None)
        contestant = design.load(cell)

        begin = time.monotonic()
        self._require_memory(cell, gpu, contestant, rotation.least_batches(cell))
        stretches = Stretches.read(cell, self._root)
        plan = rotation.plan(cell, stretches, gpu.l2.size if gpu else None)
        hot_bytes = 0
        if gpu is not None and contestant.prepares:
            pinned_rows = contestant.tunables["pinned_rows"]
            hot_bytes = hot_rows.held_bytes(cell, stretches, plan.batches, pinned_rows)
        self._require_memory(cell, gpu, contestant, plan.batches, hot_bytes)
        stored = self._tables.get(work, cell.seed)
        batches = [batch.make(cell, stretches, stored, number) for number in range(plan.batches)]
        facts: dict[str, float] = known["facts"]
        facts |= stored.error | plan.facts
        facts["values_within"] = VALUES_WITHIN
        facts |= _looked_up(work, stretches)
        prepares: list[Prepare | None] = [None] * plan.batches
        if gpu is not None:
            known["ceilings"] = gpu.ceilings
            if granted := gpu.set_aside_l2(contestant.tunables.get("set_aside_mb")):
                facts["l2_set_aside_bytes"] = granted
            gpu.l2.isolate()
            if contestant.prepares:
                hot = hot_rows.choose(cell, stretches, batches, contestant.tunables["pinned_rows"])
                facts |= hot_rows.facts(batches, hot)
                prepares = [partial(design.prepare, *one) for one in zip(batches, hot, strict=True)]
        facts["setup_s"] = time.monotonic() - begin

        begin = time.monotonic()
        in_float16 = contestant.values_in_float16 and work.quantised
        facts |= {"values_in_float16": 1.0} if in_float16 else {}
        bind = contestant.binder(batches[0])
        turns = [Turn(bind(one), prepare) for one, prepare in zip(batches, prepares, strict=True)]
        found = check.run(batches[0], prepares[0], bind, values_in_float16=in_float16)
        if found.passed:
            others = check.run_others(batches, turns, values_in_float16=in_float16)
            found = check.worst_of([found, *others])
        known["check"] = found
        facts["check_s"] = time.monotonic() - begin
        known["kernel"] = design.confirm(contestant)
        if not found.passed:
            raise CellError(check.sentence(found), "invalid")
        order = Order(plan.batches)
        inference = None if cell.model is None else self._inference(cell.model, cell, turns, order, known)
        if gpu is None:
            self._sample(cell, known, CpuStopwatch(turns, order, work.tables), Watch(None), inference)
            return
        # The check has been over the same rows; a cell begins with nothing of them in L2.
        gpu.l2.isolate()
        watch = Watch(gpu.nvml.state if gpu.nvml else None)
        stopwatch = GpuStopwatch(
            turns,
            order,
            work.tables,
            gpu.l2,
            cold=cell.timing.cache == "cold",
            overhead_us=gpu.ceilings["event_overhead_us"],
        )
        self._sample(cell, known, stopwatch, watch, inference)
        design.confirm(contestant)
        gpu.l2.isolate()

    def _open_gpu(self) -> Gpu:
        if self._gpu is None:
            begin = time.monotonic()
            self._gpu = Gpu()
            log.say(f"GPU ready after {time.monotonic() - begin:.2f} s")
        return self._gpu

    def _require_memory(
        self, cell: Cell, gpu: Gpu | None, contestant: Contestant, batches: int, hot_bytes: int = 0
    ) -> None:
        """CellError where tables, batches and check will not fit; lets go of tables of other cells.

        `hot_bytes`: what the rows to pin take."""
        work = cell.workload
        held = self._tables.hold(work, cell.seed)
        if not held:
            self._tables.drop()
        free = gpu.free_bytes() if gpu else environment.free_host_bytes()

        def more_bytes(asked: Workload) -> int:
            scratch = max(check.scratch_bytes(asked, batches), 0 if held else tables.scratch_bytes(asked))
            more = contestant.copied_bytes(asked, batches) + hot_bytes
            if cell.model is not None:
                more += dlrm.model_bytes(cell.model, asked)
                scratch = max(scratch, model_check.scratch_bytes(asked))
            return more + scratch

        batch.check_memory(work, held, more_bytes, free, batches)

    def _inference(
        self, model: Model, cell: Cell, turns: Sequence[Turn], order: Order, known: dict[str, Any]
    ) -> Inference:
        """The batches inside their model, checked; CellError where its outputs are wrong."""
        begin = time.monotonic()
        facts: dict[str, float] = known["facts"]
        work = cell.workload
        dense = dlrm.dense_features(model, work, cell.seed)
        forward = Forward(dlrm.Dlrm(model, work, cell.seed), dense, turns, order)
        inference: Inference
        if self._gpu is None or work.device == "cpu":
            inference = CpuInference(forward)
        else:
            facts["allow_tf32"] = float(torch.backends.cuda.matmul.allow_tf32)
            inference = GpuInference(
                forward,
                self._gpu.l2,
                cold=cell.timing.cache == "cold",
                overhead_us=self._gpu.ceilings["event_overhead_us"],
            )
        found = []
        for number, turn in enumerate(turns):
            pooled = [turn.look_up(call) for call in range(forward.calls)]
            predictions = inference.predictions(number)
            found.append(model_check.run(forward.dlrm, dense, pooled, predictions, number))
        known["check"] = check.worst_of([known["check"], *found])
        facts["model_check_s"] = time.monotonic() - begin
        if not (worst := check.worst_of(found)).passed:
            raise CellError(check.sentence(worst), "invalid")
        return inference

    def _sample(
        self,
        cell: Cell,
        known: dict[str, Any],
        stopwatch: Stopwatch,
        watch: Watch,
        inference: Inference | None,
    ) -> None:
        with watch:
            sampled = timing.sample(stopwatch, cell.timing, watch.count, inference)
        throttled = throttled_passes(watch.readings, sampled.passes, stopwatch.block)
        known |= {"samples": sampled.samples, "gpu": watch.readings, "throttled_passes": throttled}
        facts: dict[str, float] = known["facts"]
        facts |= {"sampling_s": sampled.seconds, "passes": sampled.passes}
        facts["repeated_blocks"] = sampled.repeated
        facts["plateau"] = float(sampled.ended == "plateau")
        if math.isfinite(sampled.interval):
            facts["relative_interval"] = sampled.interval
        log.say(
            f"{sampled.passes} passes in {sampled.seconds:.2f} s, ended by {sampled.ended},"
            f" median known to {sampled.interval:.2%}"
        )
        known["status"], known["message"] = "ok", ""
        if len(throttled) > THROTTLED_SHARE * sampled.passes:
            seen = {r for reading in watch.readings for r in reading.throttle_reasons}
            known["status"] = "inconclusive"
            known["message"] = (
                f"The GPU held back its clocks in {len(throttled)} of {sampled.passes} passes"
                f" ({', '.join(sorted(seen))}): cool it or power it better, and measure again."
            )


def _looked_up(work: Workload, stretches: Stretches) -> dict[str, float]:
    """Facts of the record on the tables' traces and on the first batch, means over the features."""
    distinct = stretches.distinct_rows
    of_batch = [stretches.distinct([place], 0) for place in range(work.tables)]
    shares = [count / feature.group.rows for count, feature in zip(distinct, work.features, strict=True)]
    return {
        "accesses": statistics.fmean(map(len, stretches.traces)),
        "distinct_rows": statistics.fmean(distinct),
        "distinct_share": statistics.fmean(shares),
        "batch_distinct_rows": sum(of_batch) / len(of_batch),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
