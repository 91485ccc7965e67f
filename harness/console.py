"""What the terminal shows: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from harness.text import clean

if TYPE_CHECKING:
    from harness.analysis.history import Line
    from harness.build.likeness import Pair
    from harness.designs import Design
    from harness.doctor import Finding
    from harness.emulator.check import Finding as Check
    from harness.models import ModelFile
    from harness.patch.manifest import Entry, Manifest

_err = Console(stderr=True, highlight=False)


class Steps:
    """A `harness.progress.Progress` on stderr: what runs now, done/total, time spent and left."""

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            SpinnerColumn("dots" if _err.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}", markup=False),  # a file's name may look like it
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_err,
            transient=True,
            disable=not _err.is_terminal,  # a file would get an empty line in place of the bar
        )
        self._task = self._bar.add_task(title, total=None)
        self._title = title
        self._last = ""

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, steps: int) -> None:
        """The work that begins now has this many steps in all."""
        self._bar.reset(self._task, total=steps)

    def now(self, what: str) -> None:
        """This runs now. Without a terminal each change is a line of its own."""
        what = clean(what)
        self._bar.update(self._task, description=f"{self._title}: {what}")
        if not _err.is_terminal and what != self._last:
            _err.print(f"{self._title}: {what}", markup=False, soft_wrap=True)
        self._last = what

    def advance(self, steps: int = 1) -> None:
        """So many steps are done."""
        self._bar.advance(self._task, steps)

    def say(self, line: str) -> None:
        """A line above the bar that stays."""
        self._bar.console.print(clean(line), markup=False, soft_wrap=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Prints a plain table; columns named in `right` hold numbers, those in `whole` what is to be pasted and
    so stays in one piece however narrow the terminal."""
    grid = Table(
        title=Text(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    cells = [[cell if isinstance(cell, Text) else Text(clean(str(cell))) for cell in row] for row in rows]
    needed = 0
    for number, name in enumerate(columns):
        longest = max((row[number].cell_len for row in cells), default=0) if name in whole else None
        needed += longest or _LEAST
        grid.add_column(
            Text(name),
            justify="right" if name in right else "left",
            no_wrap=name in whole,
            overflow="fold",
            min_width=longest,
        )
    for row in cells:
        grid.add_row(*row)
    # Tables go to files and pull requests too, where a terminal's 80 columns would cut them.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if needed > console.width:
        console = Console(highlight=False, width=needed)
    console.print(grid, soft_wrap=needed > console.width)


_LEAST = 8
"""Columns of a terminal that a table's column takes however narrow it is, with the gap behind it."""


def item(heading: str, text: str) -> None:
    """Prints what stands under a heading in the margin, its lines under one another."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=10)
    line.add_column(overflow="fold")
    line.add_row(Text(heading, "bold"), Text(clean(text)))
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(line)


def designs_table(found: Sequence[Design]) -> None:
    """A line per design: what it does, as far as there is room."""
    room = (Console().width if sys.stdout.isatty() else 140) - max(len(d.name) for d in found) - 6
    rows = [(d.name, textwrap.shorten(d.summary, room, placeholder=" …")) for d in found]
    table("Designs", ["design", "what it does"], rows, whole=["design"])


def design_details(design: Design) -> None:
    """All that a design's file says of it."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(Text.assemble((design.name, "bold"), f": {design.title}"))
    console.print(Text(design.summary))
    if design.paper:
        console.print(Text(f"In the paper: {design.paper}"))
    if design.max_registers:
        console.print(Text(f"Register cap: {design.max_registers}"))
    for name, tunable in design.tunables.items():
        values = f" (compiled for {', '.join(map(str, tunable.values))})" if tunable.values else ""
        console.print(Text(f"Tunable {name} = {tunable.default}{values}: {tunable.summary}"))


def models_table(found: Sequence[ModelFile]) -> None:
    """Tables, columns, lookups and bytes of every model, as its file has it."""
    rows = [
        (
            model.name,
            model.title,
            f"{work.stored_tables:,}",
            " ".join(dict.fromkeys((f"{work.dims[0]}", f"{work.dims[-1]}"))).replace(" ", "–"),
            f"{work.all_lookups / work.batch:,.0f}",
            f"{work.table_bytes / 1e9:,.2f} GB",
        )
        for model in found
        for work in [model.example()]
    ]
    numbers = ["tables", "columns", "rows a sample", "bytes"]
    table("Models", ["model", "what it is", *numbers], rows, right=numbers)


def findings_table(findings: Sequence[Finding]) -> None:
    """What the doctor found, and the remedy of what is missing."""
    rows = [
        (
            Text("yes", "green")
            if f.ok
            else Text("NO" if f.required else "no", "red" if f.required else "yellow"),
            f.name,
            f.what if f.ok else f"{f.what} → {f.remedy}",
        )
        for f in findings
    ]
    table("This machine", ["ok", "what", "found"], rows)


def kernels_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Registers, spilled bytes, theoretical occupancy: a line per kernel, a column per architecture."""
    archs = list(dict.fromkeys(r["arch"] for r in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rows:
        key = (r["design"], r["toolchain"], r["kernel"], r["types"])
        spilled = f"+{r['spill_bytes']}" if r["spill_bytes"] else ""
        shared = f", {r['shared_bytes']} B shared" if r["shared_bytes"] else ""
        lines.setdefault(key, {})[r["arch"]] = f"{r['registers']}{spilled} {r['occupancy']:4.0%}{shared}"
    cells = [(*key, *(found.get(arch, "–") for arch in archs)) for key, found in lines.items()]
    table(
        "Registers, +bytes spilled (stored and loaded), theoretical occupancy",
        ["design", "toolchain", "kernel", "types", *archs],
        cells,
        right=archs,
    )


def usual_kernels_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Registers, spilled bytes and occupancy of float32 kernels with the tunables' defaults: a line per
    kernel of a design, a column per compiler and architecture, so that it fits 80 columns."""
    places = list(dict.fromkeys((r["toolchain"], r["arch"]) for r in rows))
    lines: dict[str, dict[tuple[str, str], str]] = {}
    for r in rows:
        kernel = " ".join(word for word in r["kernel"].split() if "=" not in word)
        kernel = kernel.removeprefix("lookup").removeprefix("_").strip()
        name = f"{r['design']} {kernel}".strip()
        spilled = f"+{r['spill_bytes']}" if r["spill_bytes"] else ""
        lines.setdefault(name, {})[r["toolchain"], r["arch"]] = (
            f"{r['registers']}{spilled} {r['occupancy']:4.0%}"
        )
    columns = [f"{toolchain} {arch}" for toolchain, arch in places]
    cells = [(name, *(found.get(place, "–") for place in places)) for name, found in lines.items()]
    title = "Registers, +bytes spilled, theoretical occupancy; by NVRTC and architecture"
    table(title, ["float32 kernel", *columns], cells, right=columns)


def checks_table(findings: Sequence[Check]) -> None:
    """A line per check of a design; where one fails, what the kernel did."""
    rows = [
        (
            f.design,
            f.check,
            f.kernels,
            Text(f"WRONG: {f.wrong}", "red") if f.wrong else Text("right", "green"),
        )
        for f in findings
    ]
    table("Kernels on the CPU", ["design", "check", "kernels", "found"], rows, right=["kernels"])


def likeness_table(theirs: Manifest, ours: Manifest, pairs: Sequence[Pair]) -> None:
    """A kernel that others compiled beside one of ours: a line per instance that both have."""
    rows = [
        (
            pair.arch,
            f"{pair.dtype}, {pair.index_dtype}",
            _taken(pair.theirs),
            _taken(pair.ours),
            Text("yes", "green") if pair.alike else Text("NO", "red"),
        )
        for pair in pairs
    ]
    sides = [theirs.compiler, f"{ours.design}, {ours.compiler}"]
    columns = ["arch", "types", *sides, "alike"]
    table("Registers, +bytes spilled, theoretical occupancy", columns, rows, right=sides)


def _taken(kernel: Entry) -> str:
    """What a kernel takes of a multiprocessor."""
    return (
        f"{kernel.registers}{f'+{kernel.spill_bytes}' if kernel.spill_bytes else ''} {kernel.occupancy:4.0%}"
    )


def runs_table(lines: Mapping[str, Line]) -> None:
    """A line per run by its short name, those of one GPU together: when, how far, how fast; a run that cannot
    be read says why."""
    for gpu in dict.fromkeys(line.gpu for line in lines.values()):
        rows = [_run(name, line) for name, line in lines.items() if line.gpu == gpu]
        title = f"Runs on {clean(gpu)}" if gpu else "Runs"
        table(title, ["run", "began", "cells", "best × its reference"], rows, whole=["run", "began"])


def _run(name: str, line: Line) -> tuple[str | Text, ...]:
    if line.broken:
        return name, "", Text(clean(line.broken), "red"), ""
    cells = [f"{line.measured} ok"]
    cells += [f"{line.failed} failed"] if line.failed else []
    cells += [f"{line.pending} to come"] if line.pending else []
    best = line.best
    # A library's paths are told apart on the report; a label of several tunables would be broken here.
    told = f"{best.ratio:.2f}× {best.arm.partition(',')[0]} on {best.dataset}" if best else "–"
    return name, line.began[:10] or "–", Text(", ".join(cells), "red" if line.failed else ""), told


def images_table(outcome: Sequence[Mapping[str, str]]) -> None:
    """What was built and what was up to date."""
    table("Images", ["image", "state"], [(o["image"], o["state"]) for o in outcome])
