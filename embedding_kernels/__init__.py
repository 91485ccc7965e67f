"""Embedding tables looked up together on NVIDIA GPUs, for inference: one launch for all tables of a model.

    import embedding_kernels as ek

    model = ek.optimize(model)

`optimize` puts `EmbeddingTables` in the place of a model's embedding bags; `report(model)` says what it did
and why. `check` and `warm_up` are for a server's start, `bad_lookups` for its log. `tune` measures, on
the GPU that serves, which lookup is the fastest for a model's traffic; `optimize` takes the plan it makes.
"""

from embedding_kernels._held import updating
from embedding_kernels.device import Readiness, check, warm_up
from embedding_kernels.faults import BadLookups, bad_lookups
from embedding_kernels.optimize import Swap, UnsupportedError, optimize, report
from embedding_kernels.plan import Plan, PlanError
from embedding_kernels.quantised import QuantisedTable, quantise
from embedding_kernels.tables import EmbeddingTables
from embedding_kernels.tune import tune

__all__ = [
    "BadLookups",
    "EmbeddingTables",
    "Plan",
    "PlanError",
    "QuantisedTable",
    "Readiness",
    "Swap",
    "UnsupportedError",
    "bad_lookups",
    "check",
    "optimize",
    "quantise",
    "report",
    "tune",
    "updating",
    "warm_up",
]
