"""Rows that a design pins in L2, on a real GPU: when they are prepared, for which table; L2 set aside."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from harness import patch
from harness.patch import manifest
from tests.gpu.cases import assert_right, ran_design, simple_case

pytestmark = pytest.mark.gpu


@pytest.mark.two_gpus
def test_hot_rows_on_another_gpu_than_the_current_one(pinning: Path) -> None:
    patch.apply(pinning)
    case = next(case for case in map(simple_case, range(100)) if case.layout != "columns")
    here, there = case.table("cuda:0"), case.table("cuda:1")
    for weight in (here, there):
        patch.set_hot_rows(weight, torch.arange(case.weight.size(0)), renew_every=1)
        patch.prepare(weight)
    for weight, device in ((there, "cuda:1"), (here, "cuda:0")):
        assert_right(case.call(device, weight), case)
    assert torch.cuda.current_device() == 0
    ran_design(2)


def launches(of: str, work: Any) -> int:
    """How many kernels of this name ran, as the profiler of CUDA saw them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's own advice
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
    kernels = [event.name for event in profile.events() or [] if event.device_type == DeviceType.CUDA]
    if not any("lookup" in name for name in kernels):
        pytest.skip("the profiler sees no kernels here")
    return sum(of in name for name in kernels)


def test_hot_rows_are_prepared_as_often_as_asked_and_change_no_result(per_table: Path) -> None:
    patch.apply(per_table)
    if not manifest.read(per_table).prepares:
        pytest.skip("this design pins nothing")
    case = next(case for case in map(simple_case, range(100)) if case.layout != "columns")
    weight = case.table("cuda")
    other = weight.clone()
    patch.set_hot_rows(weight, torch.arange(case.weight.size(0)), renew_every=3)

    def work() -> None:
        for _ in range(7):
            assert_right(case.call("cuda", weight), case)
            assert_right(case.call("cuda", other), case)

    def look_up_and_prepare() -> None:
        case.call("cuda", weight)
        patch.prepare(weight)

    assert launches("prepare", work) == 3  # before lookups 0, 3 and 6 of the one table
    patch.set_hot_rows(weight, torch.arange(case.weight.size(0)), renew_every=0)
    assert launches("prepare", look_up_and_prepare) == 1
    patch.set_hot_rows(weight, None)
    assert launches("prepare", lambda: case.call("cuda", weight.detach())) == 0
    patch.reset_persisting_l2()


def test_hot_rows_of_a_freed_table_are_not_those_of_the_next(per_table: Path) -> None:
    patch.apply(per_table)
    if not manifest.read(per_table).prepares:
        pytest.skip("this design pins nothing")
    torch.cuda.empty_cache()  # so that the memory of this table, and no other, suits the next one best
    table = torch.randn(1000, 8192, device="cuda")
    address = table.data_ptr()
    patch.set_hot_rows(table, torch.arange(1000))
    patch.prepare(table.detach())
    torch.cuda.synchronize()
    del table
    again = torch.randn(1000, 8192, device="cuda")
    assert again.data_ptr() == address  # the allocator gave the same memory out again
    with pytest.raises(RuntimeError, match="No hot rows are set for this table"):
        patch.prepare(again)


def test_l2_is_set_aside_and_given_back() -> None:
    granted = patch.set_persisting_l2_bytes(1 << 20)
    try:
        assert granted >= 1 << 20
    finally:
        assert patch.set_persisting_l2_bytes(0) == 0
        patch.reset_persisting_l2()
