"""What to use: the design that a run speaks for, and the line of code that puts it to work."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.analysis import frame
from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.records import MEASURED, PYTORCH


@dataclass(frozen=True)
class Advice:
    """The arm that is fastest on most datasets."""

    arm: str
    where: str
    """On how many datasets it is fastest, or as fast as the fastest."""
    code: str
    """One line that uses it; empty where there is nothing to type."""
    made_by: str
    """The command that makes what the line needs; empty where none is needed."""


def of(results: Results, run: Run) -> Advice | None:
    """The advice that a run gives; None where nothing won."""
    won = [w for dataset in run.datasets if (w := results.winner(run, dataset)) and w.rivals]
    if not won:
        return None
    counts = Counter(arm for w in won for arm in (w.best.arm, *w.ties))
    outright = Counter(w.best.arm for w in won)
    arm = max(run.arms, key=lambda arm: (counts[arm], outright[arm]))
    every = "every dataset" if counts[arm] == len(won) else f"{counts[arm]} of {len(won)} datasets"
    if len(won) == 1:
        every = won[0].dataset
    tied = "" if outright[arm] == counts[arm] else ", alone or with others that cannot be told from it,"
    record = next(r for r in run.records if r.cell.arm == arm and r.status in MEASURED)
    cell = record.cell
    where = f"fastest{tied} on {every}"
    if cell.toolchain == PYTORCH:
        own = record.kernel is not None and record.kernel.name == PYTORCH
        code = "torch.nn.EmbeddingBag(...)  # PyTorch as it is" if own else ""
        return Advice(arm, where, code, "")
    folder = f"compiled/{cell.design}-{cell.toolchain}"
    tunables = f", {dict(sorted(cell.tunables.items()))}" if cell.tunables else ""
    code = f'patch.apply(Path("{folder}"){tunables})'
    if frame.single_launch(record):
        code += "; out = patch.embedding_bags(weights, indices, offsets)"
    made_by = f"harness compile {cell.design} --toolchain {cell.toolchain} --output compiled"
    return Advice(arm, where, code, made_by)
