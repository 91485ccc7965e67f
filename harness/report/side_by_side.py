"""Two runs beside one another as people read them: on the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from harness.analysis import side_by_side
from harness.analysis.results import Results
from harness.analysis.side_by_side import Beside, Pair
from harness.report import units
from harness.report.markdown import escaped, table
from harness.report.tables import Cell, Table

COLUMNS = ("A µs", "B µs", "A ÷ B", "95 % interval", "speedups, A and B")
SAME = "No difference of machine, work, protocol, software or source is known."


@dataclass(frozen=True)
class View:
    """Run B beside run A on the page."""

    names: list[str]
    """Of A and B."""
    what: str
    table: Table
    differences: Table | None
    """What is not the same on both sides; None where nothing is known to differ."""


def views(results: Results) -> list[View]:
    """The first run beside each other that shares an arm with it."""
    return [_view(beside) for beside in side_by_side.find(results)]


def renderables(results: Results) -> Iterator[RenderableType]:
    """The same for the terminal."""
    for beside in side_by_side.find(results):
        grid = Grid(
            title=Text(title(beside)),
            caption=Text(f"{beside.what}; A ÷ B above 1: B is faster. For verdicts: harness compare A B"),
            title_justify="left",
            caption_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        grid.add_column("design", overflow="fold")
        grid.add_column("dataset", overflow="fold")
        for name in COLUMNS:
            grid.add_column(name, justify="right", min_width=11 if name == "95 % interval" else None)
        for pair in beside.pairs:
            texts = map(Text, _texts(pair))
            grid.add_row(Text(pair.arm), Text(pair.dataset), *texts)
        yield grid
        for difference in beside.differences:
            yield Text.assemble(("! differs: ", "yellow"), str(difference))
        if not beside.differences:
            yield Text(SAME)


def markdown(results: Results) -> Iterator[str]:
    """The same for a pull request."""
    for beside in side_by_side.find(results):
        yield f"### {escaped(title(beside))}\n"
        rows = [[f"{pair.arm} on {pair.dataset}", *_texts(pair)] for pair in beside.pairs]
        yield table(["design", *COLUMNS], rows)
        yield f"{beside.what}; A ÷ B above 1: B is faster.\n"
        yield "".join(f"- differs: {escaped(str(one))}\n" for one in beside.differences) or f"{SAME}\n"


def title(beside: Beside) -> str:
    """Both runs, and the GPUs where they are not the same."""
    a, b = _names(beside)
    return f"A: {a}; B: {b}"


def _names(beside: Beside) -> list[str]:
    gpus = [sorted({r.environment.gpu for r in run.records if r.environment}) for run in (beside.a, beside.b)]
    told = [" or ".join(filter(None, names)) for names in gpus]
    return [
        f"{run.title} ({run.name}{f', on {gpu}' if gpu and told[0] != told[1] else ''})"
        for run, gpu in zip((beside.a, beside.b), told, strict=True)
    ]


def _texts(pair: Pair) -> list[str]:
    return [
        units.us(pair.a.value),
        units.us(pair.b.value),
        units.ratio(pair.ratio.value),
        units.span(pair.ratio),
        _speedups(pair),
    ]


def _speedups(pair: Pair) -> str:
    both = (pair.speedup_a, pair.speedup_b)
    return ", ".join(units.NONE if value is None else units.ratio(value) for value in both)


def _view(beside: Beside) -> View:
    pairs = {(pair.arm, pair.dataset): pair for pair in beside.pairs}
    arms, datasets = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    rows = [[Cell(arm), *(_cell(pairs.get((arm, dataset))) for dataset in datasets)] for arm in arms]
    differences = [
        [Cell(one.what), Cell(" and ".join(one.a)), Cell(" and ".join(one.b))] for one in beside.differences
    ]
    return View(
        _names(beside),
        beside.what,
        Table(["design", *datasets], rows, label="Time in A ÷ time in B"),
        Table(["what", "A", "B"], differences, label="What differs") if differences else None,
    )


def _cell(pair: Pair | None) -> Cell:
    if pair is None:
        return Cell(units.NONE, kind="number absent")
    kind = "faster" if pair.ratio.low > 1 else "slower" if pair.ratio.high < 1 else ""
    times = f"{units.us(pair.a.value)} → {units.us(pair.b.value)} µs"
    return Cell(
        units.ratio(pair.ratio.value),
        times,
        kind=f"number {kind}".strip(),
        title=f"{units.span(pair.ratio)}; speedups {_speedups(pair)}",
    )
