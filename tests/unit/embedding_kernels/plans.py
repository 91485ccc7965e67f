"""Plans for tests, and a clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.served_package import Candidate, Choice, Gpu, Group, Interval, Plan, Protocol, TableShape

GPU = Gpu("NVIDIA TEST", "9.0", "580.1")


def shape(rows: int, dim: int, mode: str = "sum", count: int = 1, row_type: str = "float32") -> TableShape:
    return TableShape(count, rows, dim, row_type, mode)  # type: ignore[arg-type]


def group(
    path: str, *tables: TableShape, choice: Choice | None = None, others: tuple[Choice, ...] = ()
) -> Group:
    """Its choice takes 1 µs, the others 2."""
    chosen = choice or Choice("fused", "unchanged")
    times = Interval(1.0, 0.9, 1.1), Interval(2.0, 1.9, 2.1)
    candidates = [Candidate(chosen, times[0], None, 0.0, "")]
    candidates += [Candidate(other, times[1], times[1], 0.0, "") for other in others]
    return Group(path, "ModuleList", tables, 7.5, chosen, (), tuple(candidates))


def plan(*groups: Group) -> Plan:
    protocol = Protocol("eager", 4, 10**9, 50 * 2**20, 15, 8, 0)
    return Plan(1, "0.1.0", "2.13.0", "2026-01-02T03:04:05Z", GPU, protocol, groups)


class WoundUp:
    """Each choice takes what the test says, give or take chance."""

    gpu = GPU
    l2_bytes = 1000
    multiprocessors = 10
    crowded_clocks = 600

    def __init__(self, *, noise: float = 0.001, captures: bool = True, **us: float) -> None:
        """By kernel, or where rows are converted by their type; `moved`: with other limits than the usual, of
        which `crowded` and a number is one of crowded_clocks. "vectorized" and these are slow unless they are
        named."""
        self._us, self._noise, self._captures = us, noise, captures
        self._drawn = random.Random(1)
        self.taken: list[tuple[str, int]] = []
        """What was looked up how, and which batch."""

    def eager_us(self, passes: Any, turns: Sequence[int]) -> list[float]:
        for turn in turns:
            passes.of_batch[turn]()()
            self.taken.append((passes.label, turn))
        kernel, *rows = passes.label.removesuffix(" rows").split(", ")
        kernel, _, crowded = kernel.partition(" crowded_clocks=")
        kernel = f"crowded{crowded}" if crowded else "moved" if "=" in kernel else kernel
        slow = kernel == "vectorized" or kernel.startswith(("moved", "crowded"))
        us = self._us.get(kernel, 99) if slow else self._us[(rows or [kernel])[0]]
        return [us * self._drawn.lognormvariate(0, self._noise) for _ in turns]

    def capture(self, passes: Any) -> Any:
        if not self._captures:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return passes

    def graph_us(self, captured: Any, turns: Sequence[int]) -> list[float]:
        return [time / 2 for time in self.eager_us(captured, turns)]
