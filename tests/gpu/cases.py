"""Random calls of EmbeddingBag, and what they come to in float64, computed apart from torch."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import patch

T = TypeVar("T")
TIMES = 20


ENDS = "device-side assert triggered", "unspecified launch failure"


def assert_stopped(stderr: str) -> None:
    """An assertion of the device code said so and ended the process's use of the GPU.

    CUDA calls it by either name: other threads of the block go on until the GPU stops them, and may meet in
    shared memory what the one that stopped has not written.
    """
    lines = stderr.splitlines()
    assert any("Assertion `" in line and "failed" in line for line in lines), lines[-20:]
    assert any(f"CUDA error: {end}" in stderr for end in ENDS), lines[-20:]


def at_once(cases: Sequence[T], check: Callable[[T], None]) -> None:
    """Checks each case `TIMES` times, in a thread and on a stream of its own; fails where any check does."""
    failures: list[BaseException] = []

    def work(case: T) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(TIMES):
                    check(case)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@dataclass(frozen=True)
class Case:
    """One call. Tensors are on the CPU; `bags`: the rows of each bag; `layout`: how the table lies."""

    weight: torch.Tensor
    indices: torch.Tensor
    offsets: torch.Tensor | None
    bags: list[list[int]]
    mode: str
    sample_weights: torch.Tensor | None
    include_last_offset: bool
    padding_idx: int | None
    layout: str

    def table(self, device: str) -> torch.Tensor:
        """The table on a device, laid out as the case says (a plain copy would straighten it)."""
        if self.layout == "columns":
            return self.weight.t().contiguous().to(device).t()
        if self.layout == "wider":
            return torch.nn.functional.pad(self.weight, (2, 3)).to(device)[:, 2:-3]
        return self.weight.to(device)

    def call(self, device: str, weight: torch.Tensor | None = None, **more: bool) -> torch.Tensor:
        """The call on a device, with another table of equal shape if given."""
        offsets, scales = self.offsets, self.sample_weights
        result: torch.Tensor = torch.nn.functional.embedding_bag(
            self.indices.to(device),
            self.table(device) if weight is None else weight,
            None if offsets is None else offsets.to(device),
            mode=self.mode,
            per_sample_weights=None if scales is None else scales.to(device),
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
            **more,
        )
        return result


def random_case(seed: int, dtype: torch.dtype, index_dtype: torch.dtype, last_offset: bool = False) -> Case:
    """Ragged and empty bags, every option, odd and even numbers of columns, tables with unusual strides.

    `last_offset`: whether some include the last offset, for which PyTorch's own kernel answers.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rows, dim = rng.choice([1, 7, 500, 5000]), rng.choice([1, 3, 32, 33, 64, 128, 160, 257])
    mode = rng.choice(["sum", "mean"])
    n_bags = rng.choice([0, 1, 2, 65, 300])
    longest = rng.choice([0, 1, 5, 40])
    two_dimensional = rng.random() < 0.25 and n_bags > 0 and longest > 0
    lengths = [longest if two_dimensional else rng.randint(0, longest) for _ in range(n_bags)]
    if n_bags > 2 and not two_dimensional:
        lengths[rng.randrange(n_bags)] = 300
    bags = [[rng.randrange(rows) for _ in range(length)] for length in lengths]
    include_last_offset = not two_dimensional and rng.random() < 0.3 and last_offset
    starts = np.cumsum([0, *lengths])
    flat = torch.tensor([row for bag in bags for row in bag], dtype=index_dtype)
    indices = flat.reshape(n_bags, longest) if two_dimensional else flat
    return Case(
        weight=torch.randn(rows, dim).to(dtype),
        indices=indices,
        offsets=None
        if two_dimensional
        else torch.tensor(starts if include_last_offset else starts[:-1], dtype=index_dtype),
        bags=bags,
        mode=mode,
        sample_weights=torch.randn(indices.shape).to(dtype) if mode == "sum" and rng.random() < 0.4 else None,
        include_last_offset=include_last_offset,
        padding_idx=rng.randrange(rows) if rng.random() < 0.4 else None,
        layout=rng.choice(["rows", "rows", "columns", "wider"]),
    )


def expected(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The result in float64, and how far rounding may take a kernel from it, for every element.

    A kernel may add the rows of a bag in any order, in float32: at most one rounding of each term, one of
    each partial sum and one of the mean, and then that to the output's type.
    """
    table = case.weight.to(torch.float64).numpy()
    scales = np.ones(case.indices.numel())
    if case.sample_weights is not None:
        scales = case.sample_weights.to(torch.float64).numpy().reshape(-1)
    result = np.zeros((len(case.bags), table.shape[1]))
    bound = np.zeros_like(result)
    starts = np.cumsum([0, *map(len, case.bags)])
    output_type = torch.finfo(case.weight.dtype)
    for bag, ((begin, end), rows) in enumerate(zip(pairwise(starts), case.bags, strict=True)):
        kept = np.array([row != case.padding_idx for row in rows], dtype=bool)
        terms = table[np.array(rows, dtype=int)[kept]] * scales[begin:end][kept, None]
        divisor = max(len(terms), 1) if case.mode == "mean" else 1
        result[bag] = terms.sum(axis=0) / divisor
        bound[bag] = np.abs(terms).sum(axis=0) / divisor * (len(terms) + 2) * 2.0**-24
    return result, bound + np.abs(result) * output_type.eps + output_type.smallest_normal * output_type.eps


def assert_right(output: torch.Tensor, case: Case) -> None:
    """Fails, naming the worst element, where an output is further off than rounding explains."""
    reference, bound = expected(case)
    got = output.detach().to("cpu", torch.float64).numpy()
    assert got.shape == reference.shape
    if not got.size:
        return
    excess = np.abs(got - reference) / bound
    worst = np.unravel_index(np.nan_to_num(excess, nan=np.inf).argmax(), excess.shape)
    assert np.all(excess <= 1), (
        f"bag, column {worst}: {got[worst]}, should be {reference[worst]} ± {bound[worst]}"
    )


def ran_design(calls: int) -> None:
    """The patch answered so many calls since it was applied, each by the design."""
    ran = patch.calls()
    assert (ran["design"], ran["stock"], ran["fallback"]) == (calls, 0, "")


def simple_case(seed: int = 0) -> Case:
    """A case with many ragged bags over many rows, whatever else it has."""
    candidates = (random_case(1000 * (seed + 1) + i, torch.float32, torch.int64) for i in range(1000))
    return next(
        case
        for case in candidates
        if case.offsets is not None and case.indices.numel() > 1000 and case.weight.size(0) >= 500
    )
