"""`embedding_kernels` of this checkout, its library built first unless it is there already, and TorchRec."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import MachineError
from kernel_wheel import library
from tests.conftest import required

try:
    library.build_in_place()
except MachineError as error:  # there is no compiler
    if "compiler" in required():
        raise
    pytest.skip(str(error), allow_module_level=True)

import embedding_kernels as ek
from embedding_kernels import _clock as clocks
from embedding_kernels import _contenders as contenders
from embedding_kernels import _limits as limits
from embedding_kernels import _operators
from embedding_kernels import _statistics as statistics
from embedding_kernels import plan as planning
from embedding_kernels._asked import Call, asked
from embedding_kernels._layout import Limits, Slot
from embedding_kernels.plan import Candidate, Choice, Gpu, Group, Interval, Plan, Protocol, TableShape

__all__ = [
    "Call",
    "Candidate",
    "Choice",
    "Gpu",
    "Group",
    "Interval",
    "Limits",
    "Plan",
    "Protocol",
    "Slot",
    "TableShape",
    "_operators",
    "asked",
    "clocks",
    "contenders",
    "ek",
    "import_fbgemm",
    "import_torchrec",
    "limits",
    "planning",
    "statistics",
]


def import_fbgemm() -> Any:
    """FBGEMM's table-batched modules and what they are made by, in one namespace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fbgemm_gpu import split_table_batched_embeddings_ops_common as common
        from fbgemm_gpu import split_table_batched_embeddings_ops_inference as inference
        from fbgemm_gpu import split_table_batched_embeddings_ops_training as training
        from fbgemm_gpu.split_embedding_configs import SparseType
    return SimpleNamespace(
        EmbeddingLocation=common.EmbeddingLocation,
        PoolingMode=common.PoolingMode,
        ComputeDevice=common.ComputeDevice,
        Inference=inference.IntNBitTableBatchedEmbeddingBagsCodegen,
        Training=training.SplitTableBatchedEmbeddingBagsCodegen,
        SparseType=SparseType,
    )


def import_torchrec() -> Any:
    """TorchRec, whose import warns of what it does not find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchrec
    return torchrec
