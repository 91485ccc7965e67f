"""Times of day as records tell them. Apart from records, since these know no clock."""

from __future__ import annotations

from datetime import datetime


def moment(stamp: str) -> datetime | None:
    """A record's time of day; None where the text is none, or leaves open where on earth it is one."""
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return found if found.tzinfo else None
