"""A history as sections of a page and as what the terminal shows: changes in words, then lines and runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.analysis.comparable import Difference
from harness.analysis.figures import METRICS
from harness.analysis.over_time import BOARD
from harness.analysis.timeline import Change, History, Moment, Point, Setting
from harness.records import Variant
from harness.report import blocks, history_charts, names, units
from harness.report.blocks import Block, Cell, Charts, Fold, Heading, Item, Items, Paragraph, Section, Table

_OPEN = 12
"""Changes that are not folded away."""
_MOST = 6
"""Changes that a terminal shows."""
CALM = "Nothing changed by more than its interval."
ALONE = "One run so far: the next one of the same work on such a machine shows what changes."
_HOW = (
    "Each line is a design: how many times as fast as in its first run here, with the 95 % interval. A ring "
    "marks a change that is told of above."
)


def title(found: History) -> str:
    """Of the page."""
    return f"History: {found.title}"


def tab(found: History) -> str:
    """Of the browser's tab."""
    return f"History of {found.experiment}"


def headline(found: History) -> str:
    """In a sentence or two what changed last, where the latest run is."""
    setting = found.settings[0]
    told = f"{_runs(setting)}."
    if len(setting.moments) == 1:
        return f"{told} {ALONE}"
    latest = [one for one in setting.changes if one.after == setting.moments[-1].run and not one.creeping]
    if not setting.changes:
        return f"{told} {CALM}"
    if latest:
        return f"{told} The latest run brought {_counted(latest)}."
    return f"{told} {_counted(setting.changes)}; the latest run brought none."


def work(setting: Setting) -> str:
    """What was asked of which GPU, in a line."""
    cpu = " Measured on the CPU with PyTorch's own operator; not a GPU result."
    told = f"{names.work(setting.workload)}, on {_on(setting)}."
    return told + (cpu if setting.workload.device == "cpu" else "")


def terms(found: History) -> str:
    """What the words on the page mean."""
    return (
        "A change: its 95 % interval, made wider for all that is looked at when a run is added, leaves out "
        f"1, and it is of {found.threshold * 100:g} % at least. Only runs on one model of GPU, of the same "
        "work and rows, by the same protocol are joined."
    )


def sentence(setting: Setting, change: Change, with_why: bool = True) -> str:
    """What became faster or slower between which runs, and what is known to differ between them."""
    moments = {moment.run: moment for moment in setting.moments}
    before, after = (_named(moments[run]) for run in (change.before, change.after))
    slowly = ", step by step," if change.creeping else ""
    became = f"{change.variant.label} on {change.dataset} became {units.times_as_fast(change.speed)}"
    why = f" {_why(change.differences)}" if with_why else ""
    return f"{became}{slowly} between {before} and {after}.{why}"


def sections(found: History) -> Iterator[Section]:
    """Of the page: a section per setting, then what has no place in any."""
    several = len(found.settings) > 1
    for number, setting in enumerate(found.settings):
        heading = f"{_on(setting)}, {units.count(len(setting.moments), 'run')}"
        link = f"{_on(setting)} ({number + 1})" if several else "Changes and times"
        yield Section(f"setting-{number}", heading, list(_of_setting(found, setting, number)), link)
    if found.left_out:
        rows = [[Cell(one.run, kind="path"), Cell(one.why)] for one in found.left_out]
        table = Table(["run", "why"], rows, label="Runs left out", kind="prose")
        yield Section("left-out", "Runs left out", [table])


def terminal(found: History) -> Iterator[Block]:
    """For 80 columns: what changed, then how far every design came from its first run to its last."""
    yield Paragraph(headline(found))
    for number, setting in enumerate(found.settings):
        if number:
            yield Paragraph(f"\n{_runs(setting)}.")
        yield Paragraph(f"Work: {work(setting)}")
        for place, change in enumerate(setting.changes[:_MOST]):
            known = place and _step(change) == _step(setting.changes[place - 1])
            yield Paragraph(f"- {sentence(setting, change, with_why=not known)}")
        if (more := len(setting.changes) - _MOST) > 0:
            yield Paragraph(f"- {units.count(more, 'more change')}: on the page.")
        if len(setting.moments) > 1:
            yield _since_first(setting, short=True)
    for one in found.left_out:
        yield Paragraph(f"Left out: {one.run}: {one.why}")


def _of_setting(found: History, setting: Setting, number: int) -> Iterator[Block]:
    told = [Paragraph(work(setting), "caption")] if number else []
    if setting.apart:
        apart = "; ".join(map(str, setting.apart[:6]))
        more = f"; and {len(setting.apart) - 6} more" if len(setting.apart) > 6 else ""
        told.append(Paragraph(f"Not joined with the runs before them: {apart}{more}.", "caption"))
    yield from told
    yield Heading("What changed")
    items = [Item(sentence(setting, one), one.variant, one.dataset) for one in setting.changes]
    if len(setting.moments) == 1:
        yield Paragraph(ALONE)
    elif not items:
        yield Paragraph(CALM)
    else:
        yield Items(items[:_OPEN], "sentences")
        if more_items := items[_OPEN:]:
            yield Fold(units.count(len(more_items), "earlier change"), [Items(more_items, "sentences")])
    if len(setting.moments) > 1:
        yield Heading("Run after run")
        yield Paragraph(_HOW, "caption")
        yield Charts(history_charts.speeds(found, setting, number))
        yield Fold(f"From the first to the last run, by {METRICS[setting.metric]}", [_since_first(setting)])
    drawn = Charts(history_charts.times(found, setting, number), numbers=True)
    yield Fold("Times, µs per table", [drawn], unfolded=len(setting.moments) == 1)
    yield Heading("Runs")
    yield _moments(setting.moments)


def _since_first(setting: Setting, short: bool = False) -> Table:
    """Designs × datasets: how many times as fast as in the first run that measured it; a dash where no second
    did."""
    lines: dict[tuple[Variant, str], list[Point]] = {}
    for point in setting.points:
        lines.setdefault((point.variant, point.dataset), []).append(point)

    def cell(variant: Variant, dataset: str) -> Cell:
        line = lines.get((variant, dataset), [])
        if len(line) < 2:
            return blocks.ABSENT
        last = line[-1]
        speed = last.since_first
        kind = "faster" if speed.low > 1 else "slower" if speed.high < 1 else ""
        times = " → ".join(
            units.text(names.of_one_table(setting.workload, setting.metric, point.time))
            for point in (line[0], last)
        )
        title = f"{units.span(speed)}; {last.doubt}" if last.doubt else units.span(speed)
        within = speed.relative_half_width
        return Cell(units.ratio(speed.value), f"{times} µs", title, f"number {kind}".strip(), within=within)

    rows = [[Cell(one.label), *(cell(one, name) for name in setting.datasets)] for one in setting.variants]
    how = f"Times as fast in the last run as in the first, by {METRICS[setting.metric]}"
    return Table(["design", *setting.datasets], rows, "" if short else how, how if short else "", label=how)


def _moments(moments: Sequence[Moment]) -> Table:
    rows = [
        [
            Cell(str(number), kind="number"),
            Cell(one.run, kind="path"),
            Cell(_when(one)),
            Cell(one.commit or units.NONE, kind="code"),
            Cell(one.gpu, one.board),
            Cell(one.driver or units.NONE),
            Cell(one.torch),
        ]
        for number, one in enumerate(moments, 1)
    ]
    return Table(["#", "run", "began (UTC)", "commit", "GPU", "driver", "PyTorch"], rows, label="Runs")


def _runs(setting: Setting) -> str:
    first, last = setting.moments[0], setting.moments[-1]
    days = list(dict.fromkeys((first.began[:10], last.began[:10])))
    when = f"from {days[0]} to {days[1]}" if len(days) > 1 else f"of {days[0]}"
    return f"{units.count(len(setting.moments), 'run')} on {_on(setting)} {when}"


def _on(setting: Setting) -> str:
    return setting.moments[-1].gpu or "a machine that no record names"


def _step(change: Change) -> tuple[str, str, str]:
    """Between which runs, and why, so that this is said once."""
    return change.before, change.after, _why(change.differences)


def _counted(changes: Sequence[Change]) -> str:
    """For example "3 changes: 2 for the better, 1 for the worse"."""
    faster = sum(one.verdict == "faster" for one in changes)
    told = {"better": faster, "worse": len(changes) - faster}
    parts = [f"{number} for the {way}" for way, number in told.items() if number]
    return f"{units.count(len(changes), 'change')}: {', '.join(parts)}"


def _named(moment: Moment) -> str:
    commit = names.short_commit(moment.commit)
    return f"{moment.run} ({commit})" if commit else moment.run


def _when(moment: Moment) -> str:
    return moment.began[:16].replace("T", " ")


def _why(differences: Iterable[Difference]) -> str:
    differing = {one.what: one for one in differences}
    told = [_difference(one) for one in differing.values() if one.what not in (BOARD, "commit")]
    if told:
        why = f"What differs: {', '.join(told)}."
    elif "commit" in differing:
        why = "Of what the records name, only the commit differs."
    else:
        why = "" if BOARD in differing else "Nothing differs that the records name."
    board = "It was another board of that model, which alone may be why." if BOARD in differing else ""
    return " ".join(filter(None, (why, board)))


def _difference(one: Difference) -> str:
    """The design's own without its name; what is short with both values."""
    what, _, own = one.what.partition(" of ")
    return f"its {what}" if own else str(one)
