"""Fat binaries in a library: found, unpacked, and refused in one sentence where they are cut or damaged."""

from __future__ import annotations

import io
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.build import fatbin
from harness.build.fatbin import FatbinError
from harness.errors import BadInputError, MachineError
from tests import synthetic_wheel as synthetic
from tests.synthetic_wheel import Packing, entry, fat_binary, library

CODE = b"machine code " * 40


def cubins(content: bytes) -> list[tuple[str, bytes]]:
    """Architecture and code of every cubin."""
    return [
        (found.arch, found.cubin())
        for position, binary in fatbin.binaries(io.BytesIO(content), "lib.so")
        for found in fatbin.entries(binary, "lib.so", position)
    ]


@pytest.mark.parametrize("packing", ["plain", "lz4", "zstandard"])
def test_every_cubin_is_found_and_unpacked(packing: Packing) -> None:
    first = fat_binary([entry(80, CODE, packing), entry(90, CODE[::-1], packing, header=112)])
    second = fat_binary([entry(90, b"12345678", packing)])
    # An empty one, and text for a virtual architecture, are passed over.
    text = fat_binary([entry(90, b".version 8.1", packing, kind=1)])
    found = cubins(library(first, fat_binary([]), text, second))
    # What is not compressed is padded, and its true length is not told: an ELF file bears it.
    assert [(arch, code[: len(CODE)]) for arch, code in found] == [
        ("sm_80", CODE),
        ("sm_90", CODE[::-1]),
        ("sm_90", b"12345678"),
    ]


def test_a_position_is_that_in_the_file_however_the_file_is_read() -> None:
    # Longer than what is read at a time, and found across the seams.
    content = library(*(fat_binary([entry(80, bytes([n]) * 3000, "plain")]) for n in range(50)), before=8192)
    places = [position for position, _ in fatbin.binaries(synthetic.Trickle(content), "lib.so")]
    assert places == [position for position, _ in fatbin.binaries(io.BytesIO(content), "lib.so")]
    assert len(places) == 50
    assert all(content[place : place + 4] == struct.pack("<I", 0xBA55ED50) for place in places)


def test_the_magic_number_elsewhere_means_nothing() -> None:
    magic = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 40)
    other = struct.pack("<IHHQ", 0xBA55ED50, 2, 16, 64)  # of another version
    content = library(b"odd" + magic + bytes(5), other, fat_binary([entry(80, CODE)]))
    assert cubins(content) == [("sm_80", CODE)]


def test_nothing_is_found_where_nothing_is() -> None:
    assert cubins(b"") == cubins(b"7 bytes") == cubins(bytes(100_000)) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (library(fat_binary([entry(80, CODE)]))[: 4096 + 12], "byte 4096; the file is cut short"),
        (
            library(fat_binary([entry(80, CODE)]))[: 4096 + 90],
            r"has \d+ bytes, of which the file holds 90; it is",
        ),
        (library(fat_binary([entry(80, CODE)], size=1 << 40)), "no fat binary has 1099511627776 bytes"),
        (library(fat_binary([entry(80, CODE), bytes(8)])), "has no whole header"),
        (library(fat_binary([entry(80, CODE, header=64, padded=1 << 62)])), "reaches beyond its fat binary"),
        (library(fat_binary([entry(80, CODE, packed=1 << 20)])), "reaches beyond its fat binary"),
        (library(fat_binary([entry(80, CODE, size=1 << 50)])), "reaches beyond its fat binary"),
        (library(fat_binary([entry(80, CODE, "plain"), bytes(64)])), "reaches beyond its fat binary"),
        (library(fat_binary([entry(80, CODE, size=100)])), "does not unpack"),
        (library(fat_binary([entry(80, CODE, size=9999)])), "unpacks to 520 bytes and not 9999"),
        (library(fat_binary([entry(80, CODE, "zstandard", packed=9)])), "does not unpack"),
    ],
)
def test_what_is_cut_or_damaged_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(FatbinError, match=sentence) as raised:
        cubins(content)
    assert str(raised.value).startswith("lib.so: ")
    assert isinstance(raised.value, BadInputError)


@pytest.mark.parametrize("packing", ["lz4", "zstandard"])
def test_without_what_unpacks_it_the_remedy_is_named(
    packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, packing, None)
    with pytest.raises(MachineError, match=rf"{packing} is not installed here; `pip install '.*\[wheels\]'`"):
        cubins(library(fat_binary([entry(80, CODE, packing)])))


WHOLE = library(
    fat_binary([entry(80, CODE), entry(90, CODE, "zstandard", header=96)]),
    fat_binary([entry(120, CODE, "plain"), entry(90, b".version 8.1", kind=1)]),
    before=64,
)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_happens_to_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[: data.draw(st.integers(0, len(WHOLE)))])
    if damaged:
        for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
            damaged[at] = data.draw(st.integers(0, 255))
    try:
        found = cubins(bytes(damaged))
    except FatbinError:
        return
    assert all(arch.startswith("sm_") for arch, _ in found)
