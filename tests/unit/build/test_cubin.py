"""What a cubin says of its kernels. Of real ones test_kernels holds it against what ptxas reports."""

from __future__ import annotations

import contextlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.build import cubin
from harness.build.cubin import Kernel
from harness.errors import BadInputError, MachineError
from tests import synthetic_wheel as synthetic
from tests.synthetic_wheel import Facts

WHOLE = synthetic.cubin({"first": Facts(42, 16, 0, (8, 4)), "second": Facts(255, 0, 2048, ())})


def test_every_kernel_with_its_facts() -> None:
    assert cubin.kernels(WHOLE, "a cubin") == {
        "first": Kernel(registers=42, stack_bytes=16, shared_bytes=0, parameter_bytes=(8, 4)),
        "second": Kernel(registers=255, stack_bytes=0, shared_bytes=2048, parameter_bytes=()),
    }


@pytest.mark.parametrize("content", [b"", b"\x7fELF", WHOLE[:300], WHOLE[:-1], b"no ELF file at all" * 20])
def test_what_is_no_cubin_is_refused(content: bytes) -> None:
    with pytest.raises(BadInputError, match=r"lib\.so at byte 7: is no cubin, or a damaged one"):
        cubin.kernels(content, "lib.so at byte 7")


def test_without_what_reads_it_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    with pytest.raises(MachineError, match=r"pyelftools.*`pip install 'embedding-harness\[wheels\]'`"):
        cubin.kernels(WHOLE, "a cubin")


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_whatever_happens_to_a_file_it_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for at, value in changes:
        damaged[at] = value
    with contextlib.suppress(BadInputError):
        cubin.kernels(bytes(damaged), "a cubin")
