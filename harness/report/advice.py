"""What to use: the variant that a run speaks for, and the line of code that puts it to work."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.analysis.report import Run
from harness.records import PYTORCH, TUNABLES, Variant


@dataclass(frozen=True)
class Advice:
    """The variant that is fastest on most datasets."""

    variant: Variant
    where: str
    """On how many datasets it is fastest, or as fast as the fastest."""
    code: str
    """One line that uses it; empty where there is nothing to type."""
    made_by: str
    """The command that makes what the line needs; empty where none is needed."""


def of(run: Run) -> Advice | None:
    """The advice that a run gives; None where nothing won."""
    won = [w for dataset in run.datasets if (w := run.winner(dataset, run.headline)) and w.rivals]
    if not won:
        return None
    counts = Counter(variant for w in won for variant in (w.variant, *w.ties))
    outright = Counter(w.variant for w in won)
    variant = max(run.variants, key=lambda one: (counts[one], outright[one]))
    every = "every dataset" if counts[variant] == len(won) else f"{counts[variant]} of {len(won)} datasets"
    if len(won) == 1:
        every = won[0].dataset
    tied = (
        "" if outright[variant] == counts[variant] else ", alone or with others that cannot be told from it,"
    )
    where = f"fastest{tied} on {every}"
    if variant.toolchain == PYTORCH:
        own = {kernel.name for kernel in run.kernels(variant)} == {PYTORCH}
        code = "torch.nn.EmbeddingBag(...)  # PyTorch as it is" if own else ""
        return Advice(variant, where, code, "")
    folder = f"compiled/{variant.design}-{variant.toolchain}"
    settings = next(place.settings for place in run.places if place.variant == variant)
    swept = {key.removeprefix(TUNABLES): value for key, value in settings.items() if key.startswith(TUNABLES)}
    set_ = dict(sorted({**variant.tunables, **swept}.items()))
    code = f'patch.apply(Path("{folder}"){f", {set_}" if set_ else ""})'
    if any(cell.single_launch for cell in run.cells_at(variant)):
        code += "; out = patch.embedding_bags(weights, indices, offsets)"
    made_by = f"harness compile {variant.design} --toolchain {variant.toolchain} --output compiled"
    return Advice(variant, where, code, made_by)
