"""The recommendation model round the embedding stage, in the shape of facebookresearch/dlrm, or of DCN v2.

Dense features go through the bottom MLP; its output and every table's pooled rows are multiplied with each
other (dot interaction); the products, behind the bottom's output, go through the top MLP, which ends in a
sigmoid. With cross layers these take the place of the dot products: bottom's output and pooled rows side by
side are x_0, each layer makes x_0 * (U (V x) + b) + x of x, and the last x goes through the top MLP (Wang et
al., DCN V2, arXiv 2008.13535, with matrices of low rank).
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
        self.top = mlp([interaction_width(model, work), *model.top], last_relu=False)
        wide, low = interaction_width(model, work), model.cross_rank
        self.cross = nn.ModuleList(Cross(wide, low) for _ in range(model.cross_layers))
        generator = torch.Generator(work.device).manual_seed(seed + _WEIGHTS_STREAM)
        self.to(work.device).requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, math.sqrt(2 / sum(layer.weight.shape)), generator=generator)
                if layer.bias is not None:
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
        """The bottom's output [batch, dim] and behind it the products of all pairs: [batch, dim + pairs].

        With a cross network what that gives: [batch, (1 + tables) * dim]."""
        first = torch.cat([bottom, *pooled], dim=1)
        if self.cross:
            crossed = first
            for layer in self.cross:
                crossed = layer(first, crossed)
            return crossed
        features = first.view(len(bottom), -1, self.dim)
        products = torch.bmm(features, features.transpose(1, 2))
        return torch.cat([bottom, products[:, self._rows, self._columns]], dim=1)


class Cross(nn.Module):
    """One layer of a cross network: x_0 * (U (V x) + b) + x."""

    def __init__(self, width: int, rank: int) -> None:
        """V is [rank, width] and U [width, rank]."""
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, first: Tensor, entering: Tensor) -> Tensor:
        """`first` x_0 and `entering` x: [batch, width] each."""
        crossed: Tensor = first * self.up(self.down(entering)) + entering
        return crossed


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


def interaction_width(model: Model, work: Workload) -> int:
    """Columns that enter the top MLP."""
    if model.cross_layers:
        return (work.tables + 1) * work.dim
    return work.dim + (work.tables + 1) * work.tables // 2


def model_bytes(model: Model, work: Workload) -> int:
    """Memory that the model takes beside tables and indices: weights, inputs, all that an inference makes.

    On a GPU the inference counts twice: the eager one, and that whose memory a CUDA graph keeps for itself.
    """
    scalar = DTYPES[work.output_dtype].itemsize
    features, entering = work.tables + 1, interaction_width(model, work)
    widths = [model.dense_features, *model.bottom], [entering, *model.top]
    weights = sum(a * b + b for chain in widths for a, b in itertools.pairwise(chain))
    weights += model.cross_layers * (2 * model.cross_rank + 1) * entering
    # Pooled rows, the same side by side with the bottom's output, products, those kept, what enters the
    # top; and of every layer what its linear part gives and what its ReLU does.
    products = 0 if model.cross_layers else features**2
    per_sample = work.tables * work.dim + features * work.dim + products + 2 * entering
    # Of a cross layer what each of its two matrices gives, the product and the sum.
    per_sample += model.cross_layers * (model.cross_rank + 3 * entering)
    per_sample += 2 * (sum(model.bottom) + sum(model.top))
    # PyTorch's own lookup notes the bag of every index, of one table at a time.
    inference = work.batch * per_sample * scalar + 8 * work.lookups
    inputs = work.batch * model.dense_features * scalar
    if work.device == "cpu":
        return weights * scalar + inputs + inference
    return weights * scalar + inputs + 2 * inference + _CUBLAS_BYTES
