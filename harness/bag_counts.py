"""Bags whose lengths were counted: how many there are of each, as a text. Standard library only."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping

_COUNTS = re.compile(r"\d{1,9}:\d{1,15}(, ?\d{1,9}:\d{1,15})*")
_MOST_ROWS, _MOST_BAGS = 2**28, 2**40
_MOST_LENGTHS = 4096
_GROUPS = 32
"""Of neighbouring lengths, where there are too many to be told one by one."""


def problem(counts: str) -> str:
    """What is wrong with the text, as the end of a sentence; empty where nothing is."""
    if not _COUNTS.fullmatch(counts) or counts.count(",") >= _MOST_LENGTHS:
        return (
            f'are no list of at most {_MOST_LENGTHS:,} lengths with how many bags have each, as "1:500, 7:20"'
        )
    pairs = _pairs(counts)
    if any(longer <= length for (length, _), (longer, _) in itertools.pairwise(pairs)):
        return "list lengths that do not ascend"
    if pairs[0][0] < 1 or pairs[-1][0] > _MOST_ROWS:
        return f"list a length that is not from 1 to {_MOST_ROWS:,}"
    if min(bags for _, bags in pairs) < 1 or sum(bags for _, bags in pairs) > _MOST_BAGS:
        return f"list no bags of a length, or more than {_MOST_BAGS:,} in all"
    return ""


def rows(counts: str, bags: int) -> int:
    """In so many bags, as many on average as in those that were counted."""
    all_bags, all_rows = _totals(counts)
    return _rounded(bags * all_rows, all_bags)


@functools.lru_cache(maxsize=256)
def lengths(counts: str, full: int, batch: int) -> tuple[int, ...]:
    """Of `batch` bags in ascending order, of which `full` are not empty: each of these stands for as many of
    the counted ones, with their mean, rounded so that the sum is `rows`. As many bags as were counted, or a
    multiple, have the very lengths that were counted."""
    all_bags, _ = _totals(counts)
    ends, before, rows_before = [0], 0, 0
    pairs = iter(_pairs(counts))
    length, here = next(pairs)
    for number in range(1, full + 1):
        # In bags of the counted ones, times `full`, so that all is whole numbers.
        place = number * all_bags
        while place > (before + here) * full:
            before, rows_before = before + here, rows_before + here * length
            length, here = next(pairs)
        ends.append(_rounded(rows_before * full + (place - before * full) * length, all_bags))
    found = sorted(end - begin for begin, end in itertools.pairwise(ends))
    return (*[0] * (batch - full), *found)


def text(found: Mapping[int, int]) -> str:
    """The bags by length, as a text; of many lengths neighbours are put together and have their mean, so that
    bags and rows stay as many. None is empty."""
    pairs = sorted(found.items())
    if len(pairs) > 2 * _GROUPS:
        pairs = _put_together(pairs)
    return ",".join(f"{length}:{bags}" for length, bags in pairs)


def _put_together(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In groups of about as many rows each, so that few long bags stay apart from many short ones."""
    total = sum(length * bags for length, bags in pairs)
    groups: dict[int, list[tuple[int, int]]] = {}
    seen = 0
    for length, bags in pairs:
        groups.setdefault(min(_GROUPS - 1, seen * _GROUPS // total), []).append((length, bags))
        seen += length * bags
    made: dict[int, int] = {}
    for group in groups.values():
        bags, all_rows = sum(n for _, n in group), sum(length * n for length, n in group)
        shorter, longer_ones = divmod(all_rows, bags)
        made[shorter] = made.get(shorter, 0) + bags - longer_ones
        if longer_ones:
            made[shorter + 1] = made.get(shorter + 1, 0) + longer_ones
    return sorted(made.items())


@functools.lru_cache(maxsize=4096)
def _pairs(counts: str) -> tuple[tuple[int, int], ...]:
    each = (part.split(":") for part in counts.split(","))
    return tuple((int(length), int(bags)) for length, bags in each)


@functools.lru_cache(maxsize=4096)
def _totals(counts: str) -> tuple[int, int]:
    """Bags, and rows in them."""
    pairs = _pairs(counts)
    return sum(bags for _, bags in pairs), sum(length * bags for length, bags in pairs)


def _rounded(number: int, by: int) -> int:
    return (2 * number + by) // (2 * by)
