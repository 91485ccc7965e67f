"""Sweeps in a few lines of text, for the terminal: best values of tunables, who wins and loses how often."""

from __future__ import annotations

from collections import Counter

from harness.analysis import sweeps
from harness.analysis.results import Results
from harness.analysis.sweeps import Best, Swept


def of(results: Results) -> list[str]:
    """A line per thing found; nothing where no run sweeps."""
    return [
        line for swept in sweeps.find(results) for line in [*_best(swept), *_wins(swept), *_losses(swept)]
    ]


def _best(swept: Swept) -> list[str]:
    """Of each design and dataset the values of its tunables, taken together, with which it is fastest."""
    found: dict[str, dict[str, Best]] = {}
    keys: dict[str, list[str]] = {}
    for best in swept.best:
        if best.metric != swept.metric:
            continue
        if best.key not in keys.setdefault(best.arm, []):
            keys[best.arm].append(best.key)
        fastest = found.setdefault(best.arm, {}).setdefault(best.dataset, best)
        if best.best.measurement.time.value < fastest.best.measurement.time.value:
            found[best.arm][best.dataset] = best
    lines = []
    for arm, by_dataset in found.items():
        names = ", ".join(key.partition(".")[2].replace("_", " ") for key in keys[arm])
        told = []
        for dataset, best in by_dataset.items():
            values = ", ".join(str(best.best.value(key)) for key in keys[arm])
            told.append(f"{dataset} {values}{' (tied)' if best.ties else ''}")
        lines.append(f"Best {names} of {arm}: {'; '.join(told) if len(keys[arm]) > 1 else ', '.join(told)}")
    return lines


def _wins(swept: Swept) -> list[str]:
    counts = Counter(win.best.cell.arm for win in swept.wins)
    if len({win.point for win in swept.wins}) < 2:
        return []
    told = ", ".join(f"{arm} in {count}" for arm, count in counts.most_common())
    return [f"Fastest of {sum(counts.values())} shapes and datasets: {told}"]


def _losses(swept: Swept) -> list[str]:
    places = Counter(beside.place.cell.arm for beside in swept.beside_stock)
    lost = Counter(loss.place.cell.arm for loss in swept.losses)
    told = ", ".join(f"{arm} in {lost[arm]} of {count}" for arm, count in places.items())
    return [f"Slower than PyTorch: {told}"] if told else []
