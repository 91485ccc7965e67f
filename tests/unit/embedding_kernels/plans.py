"""Plans for tests."""

from __future__ import annotations

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
