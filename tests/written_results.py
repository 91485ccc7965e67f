"""What README.md and docs say of the reference runs, written from their records: `make results`.

A block of such a page stands between `<!-- results: NAME -->` and `<!-- end -->`; NAME is a function below,
what follows it its arguments, mostly names of runs. A block whose run is not there says so, and has its
figures as soon as the run's folder is. `tests/unit/written` refuses a page whose blocks say anything
else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.written import comparisons, models, others, serving
from tests.written.runs import NotMeasuredError, Place

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/measurement.md")
BLOCK = re.compile(r"<!-- results: ([\w ]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
NOT_MEASURED = "Not measured yet on these sources.\n"

BLOCKS: dict[str, Callable[..., str]] = {
    made.__name__: made
    for made in (
        comparisons.board,
        comparisons.boards,
        comparisons.comparison,
        comparisons.cost,
        comparisons.in_short,
        comparisons.latencies,
        comparisons.limit,
        comparisons.losses,
        comparisons.memory_read,
        comparisons.peers,
        comparisons.selftest,
        comparisons.speedups,
        comparisons.whole_in_short,
        comparisons.whole_model,
        models.by_batch,
        models.by_model,
        models.by_shape,
        models.models_in_short,
        models.shapes_in_short,
        others.gpus,
        others.of_older_sources,
        others.tests_on_gpus,
        serving.costs,
        serving.plans,
        serving.served,
        serving.serving,
    )
}


def block(asked: str, place: Place) -> str:
    """What a block holds, by its name and arguments as they stand in the page."""
    name, *arguments = asked.split()
    try:
        return BLOCKS[name](place, *arguments)
    except NotMeasuredError as error:
        return str(error) or NOT_MEASURED


def written(page: str, place: Place | None = None) -> str:
    """The page with its blocks as the records have them."""
    where = place or Place()

    def anew(found: re.Match[str]) -> str:
        return f"<!-- results: {found[1]} -->\n{block(found[1], where)}<!-- end -->\n"

    return BLOCK.sub(anew, page)


def main() -> None:
    """Writes every page."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
