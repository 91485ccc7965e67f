"""python -m tests.machine_code: writes results/reference/machine-code.json.

Of the designs, by the compilers and for the architectures that reference runs are of: what today's sources
are compiled to. What no run there is of any more leaves the file. harness/analysis/machine_code.py reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from harness import designs
from harness.analysis.machine_code import FILE, Calls, Compiled, MachineCode, Special, key, known
from harness.build import kernels
from harness.cli.shared import REFERENCE_DIR
from harness.design_source import _PROSE, _facts, sources, without_comments
from harness.patch import manifest
from harness.patch.manifest import Entry
from harness.records import to_json
from tests.check_reference import recorded

CONSTANT_LOADS = (0xAB9, 0xB82)
ADDRESSES = 4
"""The bank of constants that holds addresses, here of the sentences of assertions. Where in it each lies
follows from what else is in the cubin."""


def measured(reference: Path = REFERENCE_DIR) -> set[tuple[str, str, str, str]]:
    """Design, source hash, toolchain and architecture of every reference run of a design of ours."""
    return {
        (record.kernel.name, record.kernel.source_hash, record.cell.toolchain, record.kernel.arch)
        for _, records in recorded(reference)
        for record in records
        if record.kernel and record.kernel.compiler.startswith("NVRTC")
    }


def compiled(design: str, toolchains: set[tuple[str, str]]) -> Compiled:
    """What today's sources of a design are compiled to, by these compilers for these architectures."""
    made: dict[str, dict[str, str]] = defaultdict(dict)
    chosen = designs.get(design)
    for toolchain, arch in sorted(toolchains):
        folder = kernels.compile_design(chosen, toolchain)
        found = manifest.read(folder)
        for entry in (entry for entry in found.entries if entry.arch == arch):
            tunables = " ".join(f"{name}={value}" for name, value in sorted(entry.tunables.items()))
            rest = [
                entry.function,
                entry.output_dtype,
                entry.index_dtype,
                "generic" * entry.generic,
                tunables,
            ]
            of_type = made[key(found.compiler, arch, entry.dtype)]
            of_type[" ".join(filter(None, rest))] = code_hash(folder, entry)
    told = {name: value for name, value in _facts(chosen).items() if name not in _PROSE}
    special = [
        Special(each.kernel, list(each.dtypes), calls_of(each), hashed(_facts(each)))
        for each in chosen.special
    ]
    host = [part for source in sources(chosen) for part in of_the_host(source)]
    return Compiled(hashed({**told, "special": [], "host": host}), special, dict(made))


def calls_of(special: designs.Special) -> list[Calls]:
    """For which it is, as far as runs tell."""
    return [Calls(when.rows_per_bag, when.columns, when.alike, when.bags_per_sm) for when in special.when]


def of_the_host(source: Path) -> list[str]:
    """What of a file of device code the host alone compiles: it says what kernels are told."""
    code = without_comments(source.read_text(encoding="utf-8"))
    return re.findall(r"#ifndef __CUDACC_RTC__ (.*?) #endif", code)


def hashed(facts: dict[str, Any]) -> str:
    """Of what design.toml says."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code_hash(folder: Path, entry: Entry) -> str:
    """Of a kernel's instructions, registers and shared memory."""
    with (folder / entry.cubin).open("rb") as file:
        section = ELFFile(file).get_section_by_name(f".text.{entry.symbol}")
        assert section is not None
        code = section.data()
    digest = hashlib.sha256(f"{entry.registers} {entry.shared_bytes} {entry.threads_y}".encode())
    for instruction in _without_addresses(code):
        digest.update(instruction)
    return digest.hexdigest()[:16]


def _without_addresses(code: bytes) -> Iterator[bytes]:
    for low, high in struct.iter_unpack("<QQ", code):
        constant = low >> 32
        if low & 0xFFF in CONSTANT_LOADS and constant >> 22 & 31 == ADDRESSES:
            low &= ~(0x3FFFFF << 32)
        yield struct.pack("<QQ", low, high)


def of_today(before: MachineCode, reference: Path = REFERENCE_DIR) -> MachineCode:
    """The file's content, with today's sources of every design that was measured."""
    runs = measured(reference)
    made: dict[str, dict[str, Compiled]] = defaultdict(dict)
    for design in sorted({design for design, *_ in runs} & set(designs.source_hashes())):
        hashes = {source for name, source, *_ in runs if name == design}
        kept = before.designs.get(design, {})
        made[design] = {source: kept[source] for source in sorted(hashes & kept.keys())}
        by = {(toolchain, arch) for name, _, toolchain, arch in runs if name == design}
        made[design][designs.get(design).source_hash] = compiled(design, by)
    return MachineCode(dict(made))


if __name__ == "__main__":
    FILE.write_text(to_json(of_today(known())) + "\n", encoding="utf-8")
