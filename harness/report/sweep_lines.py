"""Sweeps in a few lines of text, for the terminal: best values of tunables, who wins and loses how often."""

from __future__ import annotations

from collections import Counter

from harness.analysis import sweeps
from harness.analysis.results import Results
from harness.analysis.sweeps import Swept


def of(results: Results) -> list[str]:
    """A line per thing found; nothing where no run sweeps."""
    return [
        line for swept in sweeps.find(results) for line in [*_best(swept), *_wins(swept), *_losses(swept)]
    ]


def _best(swept: Swept) -> list[str]:
    """Of each tunable and design, with nothing else set: the best value on every dataset."""
    found: dict[tuple[str, str], list[str]] = {}
    for best in swept.best:
        if best.metric == swept.metric and not best.held:
            tied = " (tied)" if best.ties else ""
            value = f"{best.dataset} {best.best.value(best.key)}{tied}"
            found.setdefault((best.key.partition(".")[2].replace("_", " "), best.arm), []).append(value)
    return [f"Best {name} of {arm}: {', '.join(values)}" for (name, arm), values in found.items()]


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
