"""Records made up of the package, and of tests on GPUs."""

from __future__ import annotations

from typing import Any

from kernel_wheel import sources

GPU = "NVIDIA H200"


def _served(us: float) -> dict[str, Any]:
    return {"p50_us": us, "p95_us": 2 * us, "p99_us": 3 * us, "samples_per_s": 1e6 / us}


SERVING: dict[str, Any] = {
    "schema_version": 2,
    "finished": True,
    "asked_batches": [64],
    "commit": "c0ffee" * 6,
    "dirty": False,
    "sources": sources.of_today(),
    "gpu": {"name": GPU, "capability": "9.0", "driver": "580.1"},
    "packages": {"torch": "2.11.0", "torchrec": "1.5.0"},
    "model": "dlrm_dcnv2",
    "max_rows": 3_000_000,
    "row_type": "float32",
    "traffic": None,
    "plan": None,
    "blocks": 20,
    "passes": 25,
    "batches": [
        {
            "batch": 64,
            "models": {
                "torchrec_fbgemm": {"eager": _served(3000), "graph": _served(400)},
                "embedding_kernels": {"eager": _served(2000), "why_no_graph": "nothing"},
            },
        }
    ],
}
COSTS = {
    "commit": "c0ffee" * 6,
    "dirty": True,
    "sources": {},
    "gpu": GPU,
    "driver": "580.1",
    "torch": "2.11.0",
    "host_us": {"12": 20.5},
    "queued_host_us": {"12": 10.5},
    "torch_host_us": {"idle": 7.5, "queued": 6.25},
    "load_ms": {"all": 31.5},
    "counting_us": {"count": 102.0, "assert": 100.0},
    "wheel_bytes": 5_000_000,
}
_OWN = {"kernel": "own", "row_type": "unchanged", "few_rows": None, "many_bags": None}
_FUSED = _OWN | {"kernel": "fused", "crowded_clocks": 450}
PLAN = {
    "torch_version": "2.11.0",
    "tuned_at": "2026-01-01T00:00:00Z",
    "gpu": {"name": GPU, "capability": "9.0", "driver": "580.1"},
    "protocol": {"decided_by": "eager"},
    "groups": [
        {
            "path": "",
            "tables": [{"count": 20}, {"count": 6}],
            "choice": _FUSED,
            "candidates": [
                {"choice": _FUSED, "eager_us": {"median": 30.25}, "graph_us": {"median": 20.0}},
                {"choice": _OWN, "eager_us": {"median": 90.5}, "graph_us": {"median": 40.0}},
            ],
        }
    ],
}
TESTS = {
    "commit": "c0ffee" * 6,
    "clean": True,
    "gpus": [GPU, GPU],
    "driver": "580.1",
    "torch": "2.11.0",
    "passed": 1234,
    "failed": 0,
    "skipped": 2,
    "files": {},
}
