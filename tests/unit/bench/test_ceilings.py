"""The kernels that only read are what their sources say, and the ceilings what one of them reads."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.bench import ceilings, fetched_rows
from harness.build.nvrtc import Nvrtc
from harness.build.toolchain import Installation


def ptx_of(nvrtc: Nvrtc, source: Path) -> str:
    """For sm_80, which the drivers of later GPUs translate; without the banner."""
    text = source.read_text(encoding="utf-8")
    compiled = nvrtc.compile(text, source.name, ["--gpu-architecture=compute_80"], [], ptx=True)
    text = compiled.code.rstrip(b"\0").decode()
    return re.sub(r"\A(//.*\n)+\n*", "", text)


@pytest.mark.nvrtc
@pytest.mark.parametrize("ptx", [ceilings.PTX, fetched_rows.PTX], ids=lambda path: path.stem)
def test_the_ptx_that_ships_is_what_the_source_compiles_to(
    installed: Callable[[str], Installation], ptx: Path
) -> None:
    made = ptx_of(installed("12.1").nvrtc, ptx.with_suffix(".cu"))
    if os.environ.get("HARNESS_WRITE_PTX"):
        ptx.write_text(made, encoding="utf-8")
    assert ptx.read_text(encoding="utf-8") == made, (
        "run this test with HARNESS_WRITE_PTX=1 to compile it anew"
    )


def test_rows_are_read_past_l1_and_eight_are_in_flight_before_one_is_used() -> None:
    body = ceilings.PTX.read_text(encoding="utf-8").partition(".entry read_rows")[2]
    loop = body[body.index("$L__BB0_2:") : body.index("bra \t$L__BB0_2")]
    first_use = loop.index("add.f32")
    assert len(re.findall(r"ld\.global\.cg\.v4\.f32", loop[:first_use])) == 8
    assert not re.findall(r"ld\.global\.cg", loop[first_use:])


def test_the_buffer_is_far_larger_than_any_l2() -> None:
    assert ceilings.BUFFER_BYTES >= 8 * 128_000_000
    assert ceilings.scratch_bytes() > ceilings.BUFFER_BYTES


def test_rates_stand_gross_of_rows_alone_and_net_of_all_that_is_read() -> None:
    rows = ceilings.BUFFER_BYTES // ceilings.ROW_BYTES
    found = dict(ceilings.rates("stream", rows, 350.0, 3.0))
    assert found.keys() == {"stream_gbps", "stream_net_gbps"}
    assert found["stream_gbps"] == pytest.approx(2**30 / 350 / 1e3)
    assert found["stream_net_gbps"] == pytest.approx((2**30 + 4 * rows) / 347 / 1e3)
