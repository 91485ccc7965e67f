"""A TorchRec DLRM whose tables FBGEMM looks up, as for serving, and the same after `optimize`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import embedding_kernels as ek
from harness import tuning
from harness.errors import BadInputError, HarnessError
from harness.progress import Progress, Silent

_ASKED = {"float32": torch.float, "float16": torch.half, "int8": torch.qint8, "int4": torch.quint4x2}
NEAR = {"embeddings": 1e-3, "logits": 1e-2}
"""How far outputs may be apart, as a share of the largest: rows are added up in different orders, and matrix
products may round to TF32."""

Request = Callable[[], tuple[Tensor, Any]]
"""Dense features [batch, dense features] and a KeyedJaggedTensor, made anew as each request brings one."""


@dataclass(frozen=True)
class Pair:
    """The same model twice; the dense part is of one set of weights."""

    theirs: nn.Module
    ours: nn.Module

    def largest_differences(self, asked: Sequence[Request]) -> dict[str, float]:
        """Of embeddings and logits over all batches, as a share of the largest; HarnessError where they are
        beyond `NEAR`."""
        found = dict.fromkeys(NEAR, 0.0)
        for request in asked:
            answers, ours = _answers(self.theirs, *request()), _answers(self.ours, *request())
            for what, wanted in answers.items():
                given = ours[what]
                apart = float((given - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
                found[what] = max(found[what], apart)
                if not apart <= NEAR[what]:
                    raise HarnessError(
                        f"The {what} of the two models differ by {apart:.2g} of the largest, and rounding "
                        f"explains {NEAR[what]:.0e}: nothing is measured."
                    )
        return found


def _answers(model: Any, dense: Tensor, features: Any) -> dict[str, Tensor]:
    """Embeddings and logits, in this order, of one inference."""
    found: dict[str, Tensor] = {}

    def keep(module: nn.Module, asked: Any, embeddings: Any) -> None:
        found["embeddings"] = embeddings.values().float()

    with model.sparse_arch.embedding_bag_collection.register_forward_hook(keep):
        found["logits"] = model(dense, features).float()
    return found


def make_pair(
    what: tuning.Asked, row_type: str, device: str, plan: Path | None, progress: Progress | None = None
) -> Pair:
    """DLRM (DCN v2 where the model has cross layers) of TorchRec's, its tables in FBGEMM's module for
    inference. Tables are there twice."""
    progress = progress or Silent()
    dense, work = what.model.dense, what.work
    assert dense is not None
    if len(work.dims) > 1:
        raise BadInputError(
            f"{what.model.name}: tables of several widths, which TorchRec's DLRM does not take."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        progress.now("TorchRec and FBGEMM are loaded")
        from torchrec.inference.modules import quantize_embeddings
        from torchrec.models.dlrm import DLRM, DLRM_DCN

        torch.manual_seed(what.seed)
        shapes = dense.dense_features, list(dense.bottom), list(dense.top)
        progress.now(f"{work.stored_tables} tables are made, {work.table_bytes / 1e9:.1f} GB")
        tables = _collection(what, device)
        if dense.cross_layers:
            model = DLRM_DCN(tables, *shapes, dense.cross_layers, dense.cross_rank, dense_device=device)
        else:
            model = DLRM(tables, *shapes, dense_device=device)
        model.to(device)  # cross layers are made on the CPU, whatever `dense_device` says
        progress.now(f"FBGEMM's tables of {row_type} are made of them")
        theirs = quantize_embeddings(
            model.eval(), dtype=_ASKED[row_type], inplace=True, output_dtype=torch.float32
        )
    held: Any = theirs.sparse_arch.embedding_bag_collection
    progress.now("the same model after optimize is made")
    ours = copy.deepcopy(theirs, {id(held): held})
    return Pair(theirs, ek.optimize(ours, strict=True, plan=plan))


def needed_bytes(what: tuning.Asked) -> int:
    """Of memory, at the least, while the pair is made: tables in float32, FBGEMM's, and ours."""
    return 3 * what.work.table_bytes


def _collection(what: tuning.Asked, device: str) -> Any:
    import torchrec

    names: dict[int, list[str]] = {}
    for number, feature in enumerate(what.work.features):
        names.setdefault(feature.table, []).append(f"f{number}")
    groups = {feature.table: feature.group for feature in what.work.features}
    pooling = torchrec.PoolingType.MEAN if what.work.mode == "mean" else torchrec.PoolingType.SUM
    configs = [
        torchrec.EmbeddingBagConfig(
            name=f"t{table}",
            embedding_dim=groups[table].dim,
            num_embeddings=groups[table].rows,
            feature_names=names[table],
            pooling=pooling,
        )
        for table in sorted(groups)
    ]
    return torchrec.EmbeddingBagCollection(tables=configs, device=torch.device(device))


def requests(what: tuning.Asked, batches: Sequence[tuple[Any, ...]], device: str) -> list[Request]:
    """Of every batch of indices and offsets."""
    generator = torch.Generator(device).manual_seed(what.seed)
    assert what.model.dense is not None
    width = what.model.dense.dense_features
    keys = [f"f{number}" for number in range(what.work.tables)]
    found: list[Request] = []
    for indices, offsets, *_ in batches:
        dense = torch.rand(what.work.batch, width, device=device, generator=generator)
        found.append(partial(_request, dense, keys, indices, offsets.diff()))
    return found


def _request(dense: Tensor, keys: list[str], values: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
    from torchrec import KeyedJaggedTensor

    return dense, KeyedJaggedTensor(keys, values, lengths=lengths)
