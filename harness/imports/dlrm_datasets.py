"""A file of Meta's public traces (`dlrm_datasets`) as the traffic of a model of all its tables.

The format: `harness.traces.meta`, which reads one table of it. Tables are called by their numbers, from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.errors import BadInputError
from harness.imports import torch_file, traffic
from harness.imports.traffic import Traffic
from harness.traces.trace import check_offsets


def is_one(loaded: Any) -> bool:
    """Whether this is what `features` takes apart."""
    return isinstance(loaded, tuple | list)


def features(loaded: Any, called: str, file_bytes: int) -> Traffic:
    """The traffic in what a file held; BadInputError where it is none."""
    parts = [torch_file.whole_numbers(part) for part in loaded]
    if len(parts) != 3 or any(part is None for part in parts):
        raise BadInputError(
            f"{called}: does not hold the three integer tensors indices, offsets and lengths."
        )
    torch_file.check_sizes(called, loaded, file_bytes)
    indices, offsets, lengths = (np.asarray(part) for part in parts)
    if (indices.ndim, offsets.ndim, lengths.ndim) != (1, 1, 2) or len(offsets) != lengths.size + 1:
        raise BadInputError(
            f"{called}: indices {list(indices.shape)}, offsets {list(offsets.shape)} and lengths"
            f" {list(lengths.shape)} are not [accesses], [tables · bags + 1] and [tables, bags]."
        )
    check_offsets(offsets, len(indices), called)
    if (np.diff(offsets) != lengths.reshape(-1)).any():
        raise BadInputError(f"{called}: the lengths of the bags are not the distances between their offsets.")
    names = traffic.check_names(called, (f"table {number}" for number in range(len(lengths))))
    return Traffic(called, traffic.split(called, names, indices, lengths))
