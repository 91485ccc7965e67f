"""Whether the designs that a run measured are still those beside this program."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from harness import designs
from harness.errors import BadInputError
from harness.records import CellRecord


@functools.cache
def today() -> Mapping[str, str]:
    """Source hashes by design; empty where the program came without designs."""
    try:
        found = designs.discover()
    except BadInputError:
        return {}
    return {name: design.source_hash for name, design in found.items() if design.compiled}


def older(records: Iterable[CellRecord]) -> list[str]:
    """Designs that were measured from other sources than today's, in alphabetical order.

    A design that is not among today's is not named: nobody can say whether it has changed.
    """
    measured = {(record.kernel.name, record.kernel.source_hash) for record in records if record.kernel}
    return sorted({name for name, source in measured if today().get(name, source) != source})
