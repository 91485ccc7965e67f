"""Boards of one model differ by more than many a change of a kernel: what that does to a run on several.

The model: the logarithm of a time is a variant's own plus a board's, and what is left varies from process to
process. Both are fitted together by least squares, for each dataset and workload and each metric, so that a
speedup rests on comparisons within a board alone, also where a board lacks some cells (Yates's intra-block
estimate for blocks that are not complete; Cochran and Cox, Experimental Designs, chapter 9). Times keep the
differences between boards in their interval, for they speak of any such board; speedups do not.

With every replicate complete a speedup's value is the same as without boards, and its interval loses what
boards add to both sides alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis import stats
from harness.analysis.figures import METRICS
from harness.analysis.frame import LoadedRun, Series, passes
from harness.analysis.frame import levels as levels_of
from harness.analysis.stats import Sampled
from harness.records import MEASURED, CellRecord

TOLD = ("gpu_uuid", "hostname")
"""Fields of the environment that the finding here speaks of."""
LEVEL = 0.95
LEAST_OUTLYING = 0.01
"""An outlying board is off by at least this part of the time: less is what rooms and days do."""
_FEWEST_TO_JUDGE = 3
"""Of two boards nobody can say which is the odd one."""
_MOST_NAMED = 5
_ROUNDS, _SMALL = 1000, 1e-12


@dataclass(frozen=True)
class Fit:
    """Times of one dataset, workload and metric: what boards add, and what else varies."""

    added: dict[str, float]
    """Board → what it adds to the logarithm of a time; 0 on average over the records."""
    rest: dict[str, float]
    """Record → what neither its variant nor its board explains."""
    widening: float
    """The residuals are so much too small, since boards' own numbers were fitted to them."""


@dataclass(frozen=True)
class Levels:
    """What boards add in a run, by metric and record; nothing where all is of one board."""

    fits: dict[tuple[str, str], Fit] = field(default_factory=dict)
    """By metric and record."""
    boards: dict[str, str] = field(default_factory=dict)
    """Record → board."""

    def sample(
        self, processes: Mapping[str, Series], metric: str, across: Sampled, key: str, seed: int
    ) -> Sampled:
        """`across` without what boards add: for speedups within the run. `processes`: passes by record."""
        fits = [fit for record in processes if (fit := self.fits.get((metric, record)))]
        if len(fits) < len(processes):
            return across
        added = [fit.added[self.boards[record]] for record, fit in zip(processes, fits, strict=True)]
        own = across.levels - added
        widening = fits[0].widening
        moved = own.mean() + widening * (own - own.mean()) - across.levels
        levelled = [series * np.exp(by) for series, by in zip(processes.values(), moved, strict=True)]
        return stats.sample(levelled, key, seed, pool=across.pool, blocks=across.blocks)


def levels(records: Iterable[CellRecord]) -> Levels:
    """Fits what boards add to times in these records of one run, all points of its sweep together."""
    measured = [r for r in records if r.status in MEASURED and r.environment and r.environment.gpu_uuid]
    boards = {r.cell.id: r.environment.gpu_uuid for r in measured if r.environment}
    if len(set(boards.values())) < 2:
        return Levels()
    fits: dict[tuple[str, str], Fit] = {}
    groups: dict[tuple[object, ...], list[CellRecord]] = defaultdict(list)
    for record in measured:
        groups[record.cell.dataset, record.cell.workload].append(record)
    for group in groups.values():
        for metric in METRICS:
            having = [record for record in group if metric in passes(record)]
            if having and (fit := _fitted(having, metric, boards)) is not None:
                fits |= {(metric, record.cell.id): fit for record in having}
    return Levels(fits, boards)


def _fitted(records: Sequence[CellRecord], metric: str, boards: Mapping[str, str]) -> Fit | None:
    """None where boards and variants cannot be told apart, or nothing is left that would vary."""
    ids = [record.cell.id for record in records]
    times = np.array([levels_of(record)[metric] for record in records])
    contestants = _numbered([(r.cell.variant, r.cell.point) for r in records])
    places = _numbered([boards[name] for name in ids])
    count, arms, where = len(records), int(contestants.max()) + 1, int(places.max()) + 1
    left = count - arms - (where - 1)
    if where < 2 or left <= 0 or not _connected(contestants, places):
        return None
    on = np.bincount(places)
    added = np.zeros(where)
    for _ in range(_ROUNDS):
        own = np.bincount(contestants, times - added[places]) / np.bincount(contestants)
        better = np.bincount(places, times - own[contestants]) / on
        better -= float(better @ on) / count
        moved, added = float(np.abs(better - added).max()), better
        if moved < _SMALL:
            break
    own = np.bincount(contestants, times - added[places]) / np.bincount(contestants)
    rest = times - own[contestants] - added[places]
    named = {boards[name]: float(added[place]) for name, place in zip(ids, places, strict=True)}
    return Fit(named, dict(zip(ids, rest.tolist(), strict=True)), float(np.sqrt((count - arms) / left)))


def _numbered(names: Sequence[object]) -> NDArray[np.intp]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)


def _connected(contestants: NDArray[np.intp], places: NDArray[np.intp]) -> bool:
    """Whether every board can be compared with every other, by variants measured on both or by way of
    others."""
    label = np.arange(int(places.max()) + 1)
    while True:
        by_arm = np.full(int(contestants.max()) + 1, len(label))
        np.minimum.at(by_arm, contestants, label[places])
        lower = label.copy()
        np.minimum.at(lower, places, by_arm[contestants])
        if (lower == label).all():
            return bool((label == 0).all())
        label = lower


@dataclass(frozen=True)
class Board:
    """One board among those of a run."""

    uuid: str
    hostname: str
    added: float
    """What it adds to the logarithm of a time by the headline metric, on average."""
    replicates: int


@dataclass(frozen=True)
class Spread:
    """How the boards of a run differ."""

    boards: list[Board]
    """Fastest first."""
    between: float
    """Standard deviation of what they add."""
    within: float | None
    """The same of a board's own replicates; None where each has measured one."""
    outlying: list[Board]
    """Those outside the prediction interval of the others."""


def spread(run: LoadedRun, found: Levels, metric: str) -> Spread | None:
    """None where the run is of one board, or its boards cannot be compared."""
    by_board: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    hosts: dict[str, str] = {}
    for record in run.whole.records:
        if (fit := found.fits.get((metric, record.cell.id))) is not None and record.environment:
            board = found.boards[record.cell.id]
            by_board[board][record.cell.replicate].append(fit.added[board] + fit.rest[record.cell.id])
            hosts[board] = record.environment.hostname
    if len(by_board) < 2:
        return None
    means = {name: [float(np.mean(values)) for values in own.values()] for name, own in by_board.items()}
    boards = [Board(name, hosts[name], float(np.mean(own)), len(own)) for name, own in means.items()]
    boards.sort(key=lambda board: board.added)
    freedom = sum(len(own) - 1 for own in means.values())
    within = sum(float(np.var(own)) * len(own) for own in means.values())
    return Spread(
        boards,
        float(np.std([board.added for board in boards], ddof=1)),
        (within / freedom) ** 0.5 if freedom else None,
        [board for board in boards if _outlying(board, boards)],
    )


def _outlying(board: Board, boards: Sequence[Board]) -> bool:
    """Whether it is outside the interval in which one more board like the others would lie, all of them
    asked at once (Bonferroni)."""
    others = np.array([other.added for other in boards if other is not board])
    if len(boards) < _FEWEST_TO_JUDGE:
        return False
    away = abs(board.added - float(others.mean()))
    quantile = float(special.stdtrit(len(others) - 1, 1 - (1 - LEVEL) / 2 / len(boards)))
    reach = quantile * float(others.std(ddof=1)) * (1 + 1 / len(others)) ** 0.5
    return bool(away > max(reach, LEAST_OUTLYING))


def in_words(found: Spread) -> str:
    """What a reader of the run has to know."""
    names = _names(found.boards)
    first, last = found.boards[0], found.boards[-1]
    text = (
        f"{len(found.boards)} boards; speedups are formed within a board, times are of any of them. Times "
        f"differ by {found.between * 100:.2f} % between boards (standard deviation), from "
        f"{_percent(first.added)} on {names[first.uuid]} to {_percent(last.added)} on {names[last.uuid]}"
    )
    if found.within is None:
        text += "; each has measured one replicate, so processes' differences are in this"
    else:
        text += f", and by {found.within * 100:.2f} % between replicates of one board"
    for board in found.outlying[:_MOST_NAMED]:
        others = [other.added for other in found.boards if other is not board]
        off = board.added - float(np.mean(others))
        text += f". {names[board.uuid]} is outlying: {_percent(off)} beside the others; look at its clocks "
        text += "and cooling"
    if (more := len(found.outlying) - _MOST_NAMED) > 0:
        text += f". {more} more are outlying"
    return text


def _percent(added: float) -> str:
    return f"{(np.exp(added) - 1) * 100:+.2f} %".replace("-", "−")


def _names(boards: Sequence[Board]) -> dict[str, str]:
    """As short as they stay apart; with the machine where there are several."""
    short = {board.uuid: board.uuid[:12] for board in boards}
    if max(Counter(short.values()).values()) > 1:
        short = {board.uuid: board.uuid for board in boards}
    several = len({board.hostname for board in boards}) > 1
    return {b.uuid: short[b.uuid] + (f" of {b.hostname}" if several and b.hostname else "") for b in boards}
