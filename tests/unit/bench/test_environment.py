"""Where a cell was measured, as PyTorch, the driver and NVML tell it; here they are pretended."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from harness.bench import driver, environment
from harness.bench.nvml import Nvml


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(name="G", multi_processor_count=3, L2_cache_size=4, total_memory=5, uuid="u")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: told)
    monkeypatch.setattr(driver, "max_persisting_l2_bytes", lambda: 6)


def test_what_each_of_them_says_is_told() -> None:
    says = {"driver": "580", "mig": True, "processes": 3, "mps": True, "display": True}
    nvml = SimpleNamespace(**{name: lambda value=value: value for name, value in says.items()})
    found = environment.collect("cuda", cast(Nvml, nvml))
    assert found == replace(
        environment.bare("cuda"),
        gpu="G",
        gpu_uuid="GPU-u",
        driver="580",
        multiprocessors=3,
        l2_bytes=4,
        memory_bytes=5,
        persisting_l2_bytes=6,
        mig=True,
        other_processes=2,
        mps=True,
        display=True,
    )


def test_without_nvml_the_driver_is_said_to_be_unknown() -> None:
    found = environment.collect("cuda", None)
    assert (found.driver, found.gpu_uuid, found.other_processes) == (environment.NO_NVML, "GPU-u", 0)


def test_of_a_cpu_no_gpu_is_told() -> None:
    found = environment.collect("cpu", None)
    assert found == environment.bare("cpu")
    assert (found.device, found.gpu, found.torch) == ("cpu", "", torch.__version__)
