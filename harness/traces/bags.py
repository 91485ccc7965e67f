"""How long the bags of a batch are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.groups import TAIL
from harness.records import Cell, Workload
from harness.traces.stretches import Stretches


def lengths(work: Workload, seed: int, number: int = 0) -> npt.NDArray[np.int64]:
    """Rows of each bag of batch `number`, [batch]; in all, `work.lookups`.

    "fixed": `pooling` each. "ragged": the quantiles of a Lomax distribution (Zipf's law, begun at 0) whose
    mean is `pooling`, one for each bag, in an order that seed and number decide. Of 2048 bags with 150 rows
    on average, half have no more than 64, one has some 9,500, and a dozen are empty.
    """
    if work.bags == "fixed":
        return np.full(work.batch, work.pooling, dtype=np.int64)
    quantiles = (np.arange(work.batch) + 0.5) / work.batch
    wanted = (1 - quantiles) ** (-1 / TAIL) - 1
    wanted = wanted[_order(work.batch, seed, number)]
    # Where each bag ends, rounded down: the lengths are whole then and their sum is right.
    ends: npt.NDArray[np.int64] = np.floor(np.cumsum(wanted) * (work.lookups / wanted.sum())).astype(np.int64)
    ends[-1] = work.lookups
    return np.diff(ends, prepend=0)


def starts(cell: Cell, stretches: Stretches, number: int = 0) -> npt.NDArray[np.int64]:
    """Where each bag of batch `number` begins among its table's: [batch], the same for every table; of a
    model [tables, batch], for there each feature has bags of its own. `stretches`: knows those that are a
    trace's own."""
    if not cell.workload.groups:
        return _begins(lengths(cell.workload, cell.seed, number))
    each = (of_feature(cell, stretches, number, place) for place in range(cell.workload.tables))
    return np.stack([_begins(found) for found in each])


def of_feature(cell: Cell, stretches: Stretches, number: int, place: int) -> npt.NDArray[np.int64]:
    """Rows of each bag of one feature, [batch]: of a model the lengths that its group has for so many bags,
    in an order of the feature's own; a trace's own bags as they come."""
    work = cell.workload
    if not work.groups:
        return lengths(work, cell.seed, number)
    group = work.features[place].group
    if group.bags == "own":
        return stretches.lengths(place, number)
    found = np.array(group.lengths(work.batch), dtype=np.int64)
    if found[0] == found[-1]:
        return found
    return found[_order(work.batch, [cell.seed, place], number)]


def _begins(found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(found)[:-1]])


def _order(count: int, seed: int | list[int], number: int) -> npt.NDArray[np.int64]:
    """A permutation that is the same with every version of NumPy: bit generators' streams do not change."""
    return np.argsort(np.random.PCG64(seed).jumped(number).random_raw(count), kind="stable")
