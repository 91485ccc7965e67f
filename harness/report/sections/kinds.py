"""A model whose tables differ: what it is, and where the time goes by kind of table."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.kinds import Kind
from harness.analysis.report import Report, Run
from harness.records import Variant
from harness.report import blocks, names, units
from harness.report.blocks import Block, Cell, Fold, Paragraph, Section, Table

PLACE = 35
_SHOWN = 30
"""Kinds that are not folded away."""
_WHAT = """A pass looks up the whole model once. Rows asked for: bytes of all rows that a batch looks up, as
often as it does. Times are of the launches of that kind in a pass, of variants with a launch for each table;
one that takes all tables in one launch cannot tell them apart: what each kind moves, and the least time that
it takes by itself, say where its time must go."""
_CAPTION = """Of the first feature of each kind: distinct rows of a batch; lookups that an LRU cache of
256 KiB would hit; lookups of the trace that go to its 1,000 hottest rows. Of all features of the kind: bytes
with every byte once, and their share of the whole; the least time in a pass by itself. What kinds need of
memory, L2 and L1 overlaps, so the limit of the whole may be less than the sum."""


def brief(report: Report, run: Run) -> Iterator[Block]:
    """Which model was measured."""
    if run.kinds:
        yield Paragraph(f"Model {names.tables(run.protocol.workload)}.")


def page(report: Report) -> Section | None:
    found = blocks.per_run(report, lambda run: _of_run(run) if run.kinds else [])
    return Section("kinds", "The model's tables", [Paragraph(_WHAT), *found]) if found else None


def _of_run(run: Run) -> list[Block]:
    told: list[Block] = [Paragraph(f"{names.tables(run.protocol.workload)}.")]
    shown, more = run.kinds[:_SHOWN], run.kinds[_SHOWN:]
    told.append(_table(run, shown))
    if more:
        told.append(Fold(units.count(len(more), "further kind"), [_table(run, more)]))
    for dataset in dict.fromkeys(one.dataset for kind in run.kinds for one in kind.demands):
        told.append(Fold(f"What each kind asks for: {dataset}", [_demands(run, dataset)]))
    return told


def _demands(run: Run, dataset: str) -> Table:
    of_kinds = [(kind, one) for kind in run.kinds for one in kind.demands if one.dataset == dataset]
    whole = sum(one.compulsory_bytes for _, one in of_kinds)
    rows = []
    for kind, one in sorted(of_kinds, key=lambda found: -found[1].compulsory_bytes):
        told = [
            f"{kind.features:,}",
            f"{one.distinct_rows:,.0f}",
            units.share(one.hits),
            units.share(one.hottest_1000),
            f"{one.compulsory_bytes / 1e3:,.0f} kB ({units.share(one.compulsory_bytes / whole)})",
            units.NONE if one.limit_us is None else f"{units.us(one.limit_us)} ({one.part})",
        ]
        name = Cell(f"{kind.rows:,} × {kind.dim}")
        rows.append([name, *(Cell(text, kind="number") for text in told)])
    columns = ["rows × columns", "features", "distinct rows", "hit", "hottest 1,000", "each byte once"]
    return Table([*columns, "least µs per pass"], rows, _CAPTION, label=f"Demand by kind: {dataset}")


def _table(run: Run, kinds: list[Kind]) -> Table:
    timed = list(dict.fromkeys((time.variant, time.dataset) for kind in run.kinds for time in kind.times))
    columns = ["rows × columns", "tables", "rows per bag", "rows per batch", "table bytes", "rows asked for"]
    columns += [f"{variant.label}, {dataset}, µs per pass" for variant, dataset in timed]
    rows = []
    for kind in kinds:
        told = [
            f"{kind.tables:,}" + (f" for {kind.features:,} features" if kind.features > kind.tables else ""),
            f"{kind.rows_per_bag:,.3g}",
            f"{kind.lookups:,}",
            units.megabytes(kind.table_bytes),
            f"{kind.asked_bytes / 1e3:,.0f} kB",
            *(_time(run, kind, variant, dataset) for variant, dataset in timed),
        ]
        name = Cell(f"{kind.rows:,} × {kind.dim}")
        rows.append([name, *(Cell(text, kind="number") for text in told)])
    return Table(columns, rows, label="Kinds of tables, those that ask for most first", kind="compact")


def _time(run: Run, kind: Kind, variant: Variant, dataset: str) -> str:
    """With its share of what all kinds take."""
    own = {(time.variant, time.dataset): time.us for time in kind.times}.get((variant, dataset))
    whole = sum(
        time.us
        for one in run.kinds
        for time in one.times
        if (time.variant, time.dataset) == (variant, dataset)
    )
    return units.NONE if own is None else f"{units.us(own)} ({units.share(own / whole)})"
