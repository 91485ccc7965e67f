"""The paper's claims beside ours."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from harness.analysis.claims import METRICS as STAGE
from harness.analysis.claims import Beside, Claim, Ours
from harness.analysis.figures import METRICS
from harness.analysis.report import Report
from harness.report import blocks, names, units
from harness.report.blocks import Block, Cell, Fold, Paragraph, Section, Source, Table

PLACE = 80
TOGETHER = True
_CAPTION = "Ours is the largest ratio over the datasets, as the paper's “up to” means."
_ALIKE = """One figure of ours per claim, that is measured as the paper measured its own: the largest over the
datasets, as “up to” means. Where a reason is named, we do not know what it is worth."""
_ELSEWHERE = """The paper measured on an {theirs}, these runs on {ours}: with other memory, caches and clocks.
Its figures and ours are not expected to agree; where they differ, that refutes neither."""


def page(report: Report) -> Section | None:
    """None without a file of claims."""
    if report.claims is None:
        return None
    source, made = report.claims.source, table(report, report.claims)
    where = Markup('{}, <cite>{}</cite>, {}, <a href="{}">{}</a>.{}').format(
        *(source.authors, source.title, source.where, source.url, source.url),
        f" {source.note}" if made else "",
    )
    found: list[Block] = [Paragraph(where)]
    model = source.gpu.rsplit(" ", 1)[-1]
    others = " and ".join(name for name in names.gpus(report.runs) if model not in name)
    if made and others:
        found.append(Paragraph(_ELSEWHERE.format(theirs=source.gpu, ours=others), "aside"))
    found += [rows(report, report.claims)] if made else []
    if made:
        found.append(Fold("Every design and metric of ours that bears on a claim", [made]))
    answered = {ours.claim for ours in report.claims.ours}
    if not made and (missing := [one.what for one in report.claims.claims if one.id not in answered]):
        found.append(Paragraph(f"Not measured here: {'; '.join(missing)}.", "caption"))
    return Section("claims", "The paper's claims beside ours", found, "The paper's claims")


def rows(report: Report, beside: Beside) -> Table:
    """One row per claim: what the paper says, ours measured alike, why the two may differ."""
    known = {claim.id: claim for claim in beside.claims}
    common = _common(beside)
    made = []
    for row in beside.rows:
        claim, ours = known[row.claim], row.ours
        if ours is None:
            needed = row.arm if row.arm == row.against else f"{row.arm} and {row.against}"
            told = Cell("not measured here", f"needs {needed} by {METRICS[row.metric]}", kind="words")
        else:
            how = f"{units.span(ours.ratio)}, {ours.dataset}; {row.arm}, {METRICS[row.metric]}"
            source = Source(ours.run, ours.records)
            told = Cell(units.ratio(ours.ratio.value), how, kind="number", source=source)
        made.append(
            [
                Cell(claim.what, f"{row.measured}; from the {claim.source}"),
                Cell(f"{claim.value:g}×", claim.claim, kind="number"),
                told,
                Cell("; ".join(why for why in row.differs if why not in common) or units.NONE, kind="words"),
            ]
        )
    here = " or ".join(names.gpus(report.runs)) or "no GPU"
    columns = [
        "claim",
        f"paper, {beside.source.gpu}",
        f"ours, {here}",
        "why else they may differ" if common else "why they may differ",
    ]
    shared = f" Why all may differ: {'; '.join(common)}." if common else ""
    return Table(columns, made, f"{_ALIKE}{shared}", kind="prose")


def _common(beside: Beside) -> list[str]:
    """Reasons that every claim has, of several claims; they stand once and not in every row."""
    first, *others = beside.rows
    return [why for why in first.differs if others and all(why in row.differs for row in others)]


def table(report: Report, beside: Beside) -> Table | None:
    """Per claim a line of its own, then a line per variant that answers it; None where none is answered."""
    ours = {claim.id: [one for one in beside.ours if one.claim == claim.id] for claim in beside.claims}
    answered = [claim for claim in beside.claims if ours[claim.id]]
    if not answered:
        return None
    metrics = list(dict.fromkeys(metric for claim in answered for metric in claim.metrics or STAGE))
    rows: list[list[Cell]] = []
    for claim in answered:
        told = f"From the {claim.source}. {claim.caveat}".strip()
        rows.append([Cell(f"{claim.what}: {claim.claim}", told)])
        rows += _lines(report, claim, ours[claim.id], metrics)
    here = " or ".join(names.gpus(report.runs)) or "no GPU"
    columns = [f"ours, {here}", f"paper, {beside.source.gpu}", *(METRICS[metric] for metric in metrics)]
    return Table(columns, rows, _CAPTION)


def _lines(report: Report, claim: Claim, found: list[Ours], metrics: list[str]) -> Iterator[list[Cell]]:
    paper = Cell(f"{claim.value:g}×", kind="number")
    by_place = {(ours.run, ours.variant, ours.metric): ours for ours in found}
    for run, variant in dict.fromkeys((ours.run, ours.variant) for ours in found):
        row = [Cell(names.contestant(report, report.run(run), variant)), paper]
        for metric in metrics:
            ours = by_place.get((run, variant, metric))
            if ours is None:
                row.append(blocks.ABSENT)
                continue
            detail = units.span(ours.ratio) + (f", {ours.dataset}" if ours.others else "")
            source = Source(run, ours.records)
            row.append(Cell(units.ratio(ours.ratio.value), detail, kind="number", source=source))
        yield row
