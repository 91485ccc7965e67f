"""A KeyedJaggedTensor of TorchRec as the traffic of a model: every key is a feature with a table of its own.

Read is what torch.save made of one, or of a dict of what it is made of: `keys`, `values`, and `lengths` or
`offsets`, perhaps `weights`; or of a list of several, batch after batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.errors import BadInputError
from harness.imports import torch_file, traffic
from harness.imports.torch_file import Keyed
from harness.imports.traffic import Feature, Traffic
from harness.text import shown
from harness.traces.trace import check_offsets

_MOST_BATCHES = 100_000
_PARTS = ("keys", "values", "lengths", "offsets", "weights")


def is_one(loaded: Any) -> bool:
    """Whether this is what `features` takes apart."""
    if isinstance(loaded, list | tuple):
        return bool(loaded) and all(isinstance(one, Keyed | dict) for one in loaded)
    return isinstance(loaded, Keyed | dict)


def features(loaded: Any, called: str, file_bytes: int) -> Traffic:
    """The traffic in what a file held; BadInputError, naming the part, where it is none."""
    if not isinstance(loaded, list | tuple):
        return _of_batch(loaded, called, file_bytes)
    if len(loaded) > _MOST_BATCHES:
        raise BadInputError(f"{called}: holds {len(loaded):,} batches, and {_MOST_BATCHES:,} is the most.")
    batches, left = [], file_bytes
    for number, one in enumerate(loaded):
        batches.append(_of_batch(one, f"{called}: batch {number}", left))
        left -= sum(feature.indices.nbytes for feature in batches[-1].features)
    first = batches[0]
    for number, batch in enumerate(batches):
        if _names(batch) != _names(first) or batch.weighted != first.weighted:
            raise BadInputError(
                f"{called}: batch {number} has other features than the first, or weights where that has none."
            )
    return Traffic(
        called,
        tuple(
            Feature(
                own[0].name,
                np.concatenate([one.indices for one in own]),
                np.concatenate([one.lengths for one in own]),
            )
            for own in zip(*(batch.features for batch in batches), strict=True)
        ),
        weighted=first.weighted,
    )


def _names(batch: Traffic) -> list[str]:
    return [feature.name for feature in batch.features]


def _of_batch(loaded: Keyed | dict[Any, Any], called: str, file_bytes: int) -> Traffic:
    if isinstance(loaded, Keyed):
        parts = {str(name).removeprefix("_"): value for name, value in vars(loaded).items()}
    else:
        parts = loaded
        if unknown := [key for key in parts if key not in _PARTS]:
            raise BadInputError(f"{called}: {shown(unknown[0])}: is none of {', '.join(_PARTS)}.")
    _check_strides(parts, called)
    keys = parts.get("keys")
    if not isinstance(keys, list | tuple):
        raise BadInputError(f"{called}: keys: is no list of the features' names.")
    names = traffic.check_names(called, keys)
    known = [parts[name] for name in _PARTS[1:] if torch_file.is_plain(parts.get(name))]
    torch_file.check_sizes(called, known, file_bytes)
    values = torch_file.whole_numbers(parts.get("values"))
    if values is None or values.ndim != 1:
        raise BadInputError(f"{called}: values: is no list of 32 or 64-bit row numbers.")
    weights = parts.get("weights")
    if weights is not None and (not torch_file.is_plain(weights) or weights.numel() != len(values)):
        raise BadInputError(f"{called}: weights: is no tensor with one for each of {len(values):,} values.")
    lengths = _lengths(parts, called, len(names), len(values))
    if len(lengths) % len(names) or not len(lengths):
        raise BadInputError(
            f"{called}: holds {len(lengths):,} bags for {len(names):,} features, and these need equally many."
        )
    return Traffic(
        called,
        traffic.split(called, names, values, lengths.reshape(len(names), -1)),
        weighted=weights is not None,
    )


def _check_strides(parts: dict[str, Any], called: str) -> None:
    """BadInputError where features are of different batches. What a file says of that may be anything, and a
    tensor is neither true nor equal to another: so what it is comes first."""
    strides, told = parts.get("stride_per_key"), parts.get("variable_stride_per_key")
    whole = isinstance(strides, list | tuple) and all(isinstance(stride, int) for stride in strides)
    if strides is not None and not whole:
        raise BadInputError(f"{called}: stride_per_key: is no list of whole numbers; save the batch anew.")
    varies = parts.get("inverse_indices") is not None or len(set(strides or ())) > 1
    if varies or _varies_by_rank(parts) or (told is not None and told is not False):
        raise BadInputError(f"{called}: a batch that varies between features is not measured.")


def _varies_by_rank(parts: dict[str, Any]) -> bool:
    """Whether the samples of each rank are said, and not to be equally many together for every feature.
    TorchRec 0.6 says them of every batch."""
    ranks = parts.get("stride_per_key_per_rank")
    if not isinstance(ranks, list):
        return ranks is not None
    if not all(isinstance(own, list) and all(isinstance(stride, int) for stride in own) for own in ranks):
        return True
    return len({sum(own) for own in ranks}) > 1


def _lengths(parts: dict[str, Any], called: str, features: int, values: int) -> traffic.Indices:
    """Of all bags, feature after feature. Where both are given, lengths and offsets have to agree."""
    found = {}
    for name, most, told in (("lengths", 2, "one or two dimensions"), ("offsets", 1, "one dimension")):
        if parts.get(name) is not None:
            array = torch_file.whole_numbers(parts[name])
            if array is None or array.ndim > most:
                raise BadInputError(
                    f"{called}: {name}: is no tensor of 32 or 64-bit whole numbers in {told}."
                )
            if array.ndim == 2 and len(array) != features:
                need = "1 feature needs" if features == 1 else f"{features:,} features need"
                raise BadInputError(
                    f"{called}: {name}: are {list(array.shape)}, and {need} [{features}, bags], with values "
                    "feature after feature."
                )
            found[name] = array.reshape(-1)
    if not found:
        raise BadInputError(f"{called}: lengths: are missing, and so are offsets.")
    if "offsets" in found:
        check_offsets(found["offsets"], values, called)
        between = np.diff(found["offsets"])
        if "lengths" in found and not np.array_equal(found["lengths"], between):
            raise BadInputError(f"{called}: the lengths of its bags are not the distances between offsets.")
        return between
    return found["lengths"]
