"""How popular the rows of a table are: by which law independent draws look up as many distinct rows.

The law is the one that a model's file holds and `harness.traces.synth.zipf` draws from, FBGEMM's: shares of
the hottest rows one by one, behind them rank x in proportion to (x + q)^-s. s and q are fitted to how many
distinct rows stretches of the traffic hold, of the length of a batch, of parts of it and of the whole. Fitted
to the rows' counts they would find popular rows in traffic that favours none, where some row is always looked
up most.

What the law does not keep is the order: in real traffic a row comes back soon after it was looked up, so that
short stretches hold fewer distinct rows than independent draws with the same popularity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer[Any]]
_Floats = npt.NDArray[np.float64]

_MOST_HOTTEST = 20
"""Rows told one by one."""
_SURE = 100
"""Accesses to a row from which its share is known well enough to be told."""
_STEPS = 10**6
"""Of a share as it is told."""
_PARTS, _STEP = 3, 4
"""Stretches are a batch long, and shorter and longer by this factor; shorter ones so often."""
_LESS = 0.25
"""What a stretch shorter than a batch counts, beside one that is not."""
_WINDOWS = 8
"""Of the same length, at most, that are counted."""
_ALIKE = 0.01
"""Rows are taken for equally popular, but for the hottest, where distinct rows are within so much of that."""
_FLAT = 1e-3
"""A smaller exponent makes no row more popular than another."""
_EXACT, _BINS = 64, 128
"""Ranks that are summed one by one, and groups of neighbouring ranks behind them."""
_MOST_S, _MOST_DIGITS = 32.0, 280
"""Of the law's exponent, and of its smallest weight, which has to stay a number."""


class Law(NamedTuple):
    """As a `TableGroup` has it; without any value all rows are equally popular."""

    hottest: tuple[float, ...] = ()
    zipf_s: float = 0.0
    zipf_q: float = 0.0


def measured(indices: Indices, rows: int, lookups: int) -> Law:
    """The law of these accesses, [accesses] of rows 0..rows-1. `lookups`: of them in a batch."""
    hottest, lengths = _hottest(indices, rows), _stretches(len(indices), lookups)
    seen = np.array([distinct(indices, length) for length in lengths])
    if not len(seen) or _apart(seen, expected(Law(hottest), rows, lengths)) < _ALIKE:
        return Law(hottest)
    return _fitted(hottest, rows, lengths, seen, np.where(lengths < lookups, _LESS, 1.0))


def distinct(indices: Indices, length: int) -> float:
    """Distinct rows in so many accesses one after the other, on average over stretches from all of them."""
    many = min(_WINDOWS, max(1, len(indices) // length))
    begins = np.linspace(0, len(indices) - length, many).astype(np.int64)
    return float(np.mean([len(np.unique(indices[begin : begin + length])) for begin in begins]))


def expected(law: Law, rows: int, lengths: npt.NDArray[np.int64]) -> _Floats:
    """Distinct rows in so many independent draws each, on average."""
    first = len(law.hottest)
    each = np.minimum(np.asarray(law.hottest), 1.0)
    edges = _edges(first, rows)
    shares = max(0.0, 1 - float(each.sum())) * _shares(edges, law.zipf_s, law.zipf_q)
    ranks = np.diff(edges)
    with np.errstate(divide="ignore"):  # a row that is always looked up
        hot = -np.expm1(lengths[:, None] * np.log1p(-each))
    cold = -np.expm1(-lengths[:, None] * (shares / ranks)) * ranks
    found: _Floats = hot.sum(axis=1) + cold.sum(axis=1)
    return found


def _stretches(accesses: int, lookups: int) -> npt.NDArray[np.int64]:
    """Lengths, ascending: a batch's, shorter and longer ones, and the whole."""
    lookups = min(lookups, accesses)
    shorter = [lookups // _STEP**power for power in range(_PARTS, 0, -1)]
    longer = [lookups]
    while longer[-1] * _STEP < accesses:
        longer.append(longer[-1] * _STEP)
    return np.unique([length for length in (*shorter, *longer, accesses) if length > 1]).astype(np.int64)


def _hottest(indices: Indices, rows: int) -> tuple[float, ...]:
    """Shares of the rows that are looked up most, as far as they are known and stand out."""
    _, times = np.unique(indices, return_counts=True)
    times = np.sort(times)[::-1][: min(_MOST_HOTTEST, rows - 1)]
    alike = len(indices) / rows
    told = times[(times >= _SURE) & (times > alike + 5 * np.sqrt(alike))]
    # Rounded down, so that they are never more than all accesses.
    return tuple((np.floor(told / len(indices) * _STEPS) / _STEPS).tolist())


def _fitted(
    hottest: tuple[float, ...], rows: int, lengths: npt.NDArray[np.int64], seen: _Floats, weights: _Floats
) -> Law:
    from scipy import optimize

    def law(at: _Floats) -> Law:
        return Law(hottest, float(at[0]), float(np.expm1(at[1])))

    def badly(at: _Floats) -> float:
        apart = np.log(expected(law(at), rows, lengths) / seen)
        return float(weights @ apart**2)

    most_q = float(np.log1p(_MOST_S * rows))
    most_s = min(_MOST_S, _MOST_DIGITS / float(np.log10((1 + _MOST_S) * rows + 10)))
    bounds = [(0.0, most_s), (0.0, most_q)]
    begun = [np.array([s, q * most_q]) for s in (0.7, 1.2, 4.0) for q in (0.1, 0.8)]
    found = [
        optimize.minimize(
            badly, one, bounds=bounds, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-7}
        )
        for one in begun
    ]
    s, q = law(min(found, key=lambda one: float(one.fun)).x)[1:]
    return Law(hottest, float(f"{s:.4g}"), float(f"{q:.4g}")) if s >= _FLAT else Law(hottest)


def _apart(seen: _Floats, wanted: _Floats) -> float:
    return float(np.abs(seen / wanted - 1).max())


def _edges(first: int, rows: int) -> _Floats:
    """Between groups of the ranks behind the first ones: ascending, all of them whole numbers."""
    exact = np.arange(first, min(first + _EXACT, rows) + 1)
    wide = np.rint(np.geomspace(exact[-1], rows, _BINS)) if exact[-1] else exact
    return np.unique(np.concatenate([exact, wide])).astype(np.float64)


def _shares(edges: _Floats, s: float, q: float) -> _Floats:
    """Of each group of ranks, of all that the law has: its integral from half a rank before the first to half
    a rank behind the last."""
    scaled = np.log((edges + 0.5 + q) / (edges[0] + 0.5 + q))
    below = scaled if abs(1 - s) < 1e-9 else np.expm1((1 - s) * scaled) / (1 - s)
    shares: _Floats = np.diff(below) / below[-1]
    return shares
