"""Numbers as people read them, sensibly rounded, with units; and words where there is no number."""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.figures import Figure, Hint
from harness.analysis.stats import Estimate

NONE = "–"


def us(value: float | None) -> str:
    """A time in µs without its unit, for a column headed "µs": four significant figures or a tenth."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float, decimals: int = 2) -> str:
    """A speedup, for example "1.75×"."""
    return f"{value:.{decimals}f}×"


DISAGREE = "processes disagree"
"""Stands in place of an interval that says no more than this."""


def sensible(low: float, high: float) -> bool:
    """Whether an interval says anything: its ends lie within a factor of four, two on either side."""
    return low > 0 and high <= 4 * low


def span(estimate: Estimate, decimals: int = 2) -> str:
    """A speedup's interval, for example "1.74–1.76"; a third decimal where two would hide it.

    And where two would show as holding 1 what does not: "0.984–0.998", not "0.98–1.00". Where processes
    disagree by more than about two times, that instead.
    """
    if not sensible(estimate.low, estimate.high):
        return DISAGREE
    bounds = round(estimate.low, decimals), round(estimate.high, decimals)
    nearest = estimate.low if estimate.low > 1 else estimate.high if estimate.high < 1 else None
    if bounds[0] == bounds[1] or (nearest is not None and round(nearest, decimals) == 1):
        decimals += 1
    return f"{estimate.low:.{decimals}f}–{estimate.high:.{decimals}f}"


def times_as_fast(speed: Estimate) -> str:
    """A speed against another with half its interval, in words: "1.08 ± 0.01 times as fast"; a third decimal
    where two would hide what is known. Where processes disagree by more than about two times, that."""
    if not sensible(speed.low, speed.high):
        return f"{speed.value:.2f} times as fast ({DISAGREE})"
    half = (speed.high - speed.low) / 2
    decimals = 2 if half >= 0.01 else 3
    return f"{speed.value:.{decimals}f} ± {max(half, 0.001):.{decimals}f} times as fast"


def within(relative: float) -> str:
    """Half an interval in percent of the figure, short: "±2.7", "±<0.1"; "±?" where processes disagree."""
    if relative > 0.75:
        return "±?"
    return f"±{relative * 100:.1f}" if relative >= 0.0005 else "±<0.1"


def share(value: float) -> str:
    """A part of a whole, for example "39 %", below a tenth "6.2 %"."""
    return f"{value * 100:.0f} %" if value >= 0.0995 else f"{value * 100:.1f} %"


def us_span(estimate: Estimate) -> str:
    """A time's interval, without its unit; a further decimal where it would seem to have no width."""
    if not sensible(estimate.low, estimate.high):
        return DISAGREE
    low, high = us(estimate.low), us(estimate.high)
    if low == high:
        decimals = len(low.partition(".")[2]) + 1
        low, high = f"{estimate.low:,.{decimals}f}", f"{estimate.high:,.{decimals}f}"
    return f"{low}–{high}"


def spread(values: list[float]) -> str:
    """How far replicates lie apart: (largest - smallest) ÷ smallest, for example "0.6 %"."""
    return f"{(max(values) / min(values) - 1) * 100:.1f} %"


def gbps(value: float) -> str:
    """A bandwidth given in GB/s, in TB/s, so that one unit stands in a table; in GB/s where it is little."""
    return f"{value / 1000:.2f} TB/s" if value >= 100 else f"{value:.3g} GB/s"


def bytes_(value: float) -> str:
    """A size, in binary units."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def megabytes(value: float) -> str:
    """Bytes moved, in units of 10^6 as bandwidths are."""
    return f"{value / 1e6:,.0f} MB" if value >= 9.95e6 or not value else f"{value / 1e6:.1f} MB"


def text(figure: Figure | None) -> str:
    """A figure without its interval, and without its unit where that heads its column; a dash for none."""
    return NONE if figure is None else shown(figure.hint, figure.value)


def shown(hint: Hint, value: float) -> str:
    """A number as figures of this kind are shown."""
    return _TEXTS[hint](value)


def interval(figure: Figure) -> str:
    """A figure's interval; empty where it has none."""
    if figure.low is None or figure.high is None:
        return ""
    if figure.hint == "share":
        return f"{share(figure.low)}–{share(figure.high)}"
    return us_span(figure.estimate) if figure.hint == "time" else span(figure.estimate)


def half_width(figure: Figure) -> float | None:
    """Half its interval as a part of a figure; None where it has none."""
    return None if figure.low is None else figure.estimate.relative_half_width


def millions(value: float) -> str:
    """A large number, for example "0.79 M"."""
    return f"{value / 1e6:.2f} M"


def count(number: int, noun: str, plural: str = "") -> str:
    """For example "1 cell", "3 cells"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


_TEXTS: dict[Hint, Callable[[float], str]] = {
    "time": us,
    "ratio": ratio,
    "share": share,
    "size": bytes_,
    "traffic": megabytes,
    "rate": gbps,
    "count": "{:,.0f}".format,
    "millions": millions,
}
