"""The recommendation model round the embedding stage, in the shape of facebookresearch/dlrm.

Dense features go through the bottom MLP; its output and every table's pooled rows are multiplied with each
other (dot interaction); the products, behind the bottom's output, go through the top MLP, which ends in a
sigmoid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.bench.batch import Lookup
from harness.bench.tables import DTYPES
from harness.records import Model, Workload

_WEIGHTS_STREAM, _DENSE_STREAM = 2 << 32, 3 << 32
"""Added to the seed, so that neither repeats the values of the tables."""
_CUBLAS_BYTES = 2 * (64 << 20)
"""Workspaces that cuBLAS takes, for the eager run and for the graph's."""


class Prediction(NamedTuple):
    """What one inference gives, [batch, last layer of the top MLP] each."""

    logits: Tensor
    probabilities: Tensor


class Dlrm(nn.Module):
    """The model without its tables. In the dtype that lookups give, float32 or a half one."""

    def __init__(self, model: Model, work: Workload, seed: int) -> None:
        """Weights are drawn as DLRM draws them, from the seed."""
        super().__init__()
        self.dim = work.dim
        self.bottom = mlp([model.dense_features, *model.bottom])
        self.top = mlp([interaction_width(work), *model.top], last_relu=False)
        generator = torch.Generator(work.device).manual_seed(seed + _WEIGHTS_STREAM)
        self.to(work.device).requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, math.sqrt(2 / sum(layer.weight.shape)), generator=generator)
                layer.bias.normal_(0, math.sqrt(1 / len(layer.bias)), generator=generator)
        self.to(DTYPES[work.output_dtype])
        # Which products are kept: below the diagonal, row by row.
        pairs = torch.tril_indices(work.tables + 1, work.tables + 1, -1, device=work.device)
        self._rows, self._columns = pairs.unbind()

    def forward(self, dense: Tensor, lookups: Sequence[Lookup]) -> Prediction:
        """One inference: `dense` [batch, dense_features]; each lookup is called once, in order."""
        bottom = self.bottom(dense)
        logits = self.top(self.interaction(bottom, [lookup() for lookup in lookups]))
        return Prediction(logits, logits.sigmoid())

    def interaction(self, bottom: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """The bottom's output [batch, dim] and behind it the products of all pairs: [batch, dim + pairs]."""
        features = torch.cat([bottom, *pooled], dim=1).view(len(bottom), -1, self.dim)
        products = torch.bmm(features, features.transpose(1, 2))
        return torch.cat([bottom, products[:, self._rows, self._columns]], dim=1)


def mlp(widths: Sequence[int], *, last_relu: bool = True) -> nn.Sequential:
    """Linear layers from each width to the next, each followed by a ReLU, the last only if wanted."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


def dense_features(model: Model, work: Workload, seed: int) -> Tensor:
    """[batch, dense_features] of values in 0..1, from the seed."""
    generator = torch.Generator(work.device).manual_seed(seed + _DENSE_STREAM)
    shape = work.batch, model.dense_features
    return torch.rand(shape, device=work.device, generator=generator).to(DTYPES[work.output_dtype])


def interaction_width(work: Workload) -> int:
    """Columns that enter the top MLP."""
    return work.dim + (work.tables + 1) * work.tables // 2


def model_bytes(model: Model, work: Workload) -> int:
    """Memory that the model takes beside tables and indices: weights, inputs, all that an inference makes.

    On a GPU the inference counts twice: the eager one, and that whose memory a CUDA graph keeps for itself.
    """
    scalar = DTYPES[work.output_dtype].itemsize
    features, entering = work.tables + 1, interaction_width(work)
    widths = [model.dense_features, *model.bottom], [entering, *model.top]
    weights = sum(a * b + b for chain in widths for a, b in itertools.pairwise(chain))
    # Pooled rows, the same side by side with the bottom's output, products, those kept, what enters the
    # top; and of every layer what its linear part gives and what its ReLU does.
    per_sample = work.tables * work.dim + features * work.dim + features**2 + 2 * entering
    per_sample += 2 * (sum(model.bottom) + sum(model.top))
    # PyTorch's own lookup notes the bag of every index, of one table at a time.
    inference = work.batch * per_sample * scalar + 8 * work.lookups
    inputs = work.batch * model.dense_features * scalar
    if work.device == "cpu":
        return weights * scalar + inputs + inference
    return weights * scalar + inputs + 2 * inference + _CUBLAS_BYTES
