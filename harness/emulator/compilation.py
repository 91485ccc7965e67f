"""A design's kernels as a program and as a library for this CPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness import design_checks
from harness.build import launch_header
from harness.build.cache import cache_dir, make_once
from harness.build.instances import Instance
from harness.design_source import COMMON_DIR, DESIGNS_DIR, LAUNCH_HEADER, text_of
from harness.designs import Design
from harness.emulator.arguments import LookupArgs, PrepareArgs, TableRows, TablesArgs
from harness.errors import BadInputError, MachineError

STAND_IN = Path(__file__).parent / "device"
_PREFETCHES = [
    f'asm volatile("prefetch.global.{where} [%0];" ::"l"(address));' for where in ("L1", "L2::evict_last")
]
OPTIONS = [
    "-std=c++20",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",  # libraries of several designs share a process, and no name but those of kernels
    "-fwrapv",
    "-fno-exceptions",
    "-U_FORTIFY_SOURCE",  # which takes a switch between stacks for an attack
    "-fsanitize=bounds,alignment",  # without its library: device/memory.h says what is wrong
    "-fno-sanitize-recover=all",
    "-Wno-unknown-pragmas",
]


def compiler() -> list[str]:
    """The C++ compiler as the words of a command; MachineError where there is none."""
    command = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(command[0]) is None:
        raise MachineError(
            f"Device code is checked with a C++ compiler, and there is no {command[0]!r}: install one "
            "(apt-get install g++), or name it in CXX."
        )
    return command


class Compiled(NamedTuple):
    """One design's kernels, twice from the same object file."""

    program: Path
    """Runs them in processes of their own, see device/serve.h."""
    library: Path
    """Is loaded by a process that launches them, see device/entries.h: a symbol for each (`symbol`)."""


def symbol(design: Design, instance: Instance) -> str:
    """For example "fused_lookup_tables_int8_float32_int64_fast", "smpf_lookup_float32_int64_distance2"."""
    kind = {True: "generic", False: "fast", None: ""}[instance.generic]
    tunables = [f"{name}{value}" for name, value in instance.tunables.items()]
    words = [
        design.name,
        instance.function,
        instance.dtype,
        instance.output_dtype,
        instance.index_dtype,
        kind,
    ]
    return re.sub(r"\W", "_", "_".join(filter(None, [*words, *tunables])))


def compiled(design: Design, wanted: Sequence[Instance]) -> Compiled:
    """From the cache where the same sources were compiled before.

    MachineError without a C++ compiler, or where the design has instructions that are not emulated;
    BadInputError with the compiler's words where it refuses the source.
    """
    command = compiler()
    design_checks.check_kernels(design)
    sources = _sources(design)
    host = _host_code(design, wanted)
    version = subprocess.run([*command, "--version"], capture_output=True, check=False).stdout
    key = hashlib.sha256(repr([command, OPTIONS, version, host, sorted(sources.items())]).encode())
    for path in sorted(STAND_IN.iterdir()):
        key.update(path.read_bytes())

    def make(scratch: Path) -> None:
        for name, code in sources.items():
            (scratch / name).parent.mkdir(exist_ok=True, parents=True)
            (scratch / name).write_text(code, encoding="utf-8")
        (scratch / "host.cpp").write_text(host, encoding="utf-8")
        includes = [STAND_IN, scratch / design.name, scratch / COMMON_DIR.name, scratch]
        compile_ = [
            *command,
            *OPTIONS,
            *(f"-I{path}" for path in includes),
            "-c",
            "host.cpp",
            "-o",
            "host.o",
        ]
        link = [*command, "host.o", "-o"]
        for step in (compile_, [*link, "host"], [*link, "kernels.so", "-shared"]):
            done = subprocess.run(
                step, cwd=scratch, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode:
                raise BadInputError(_refusal(design, done.stderr))
        (scratch / "host.o").unlink()

    folder = make_once(cache_dir() / "emulated" / f"{design.name}-{key.hexdigest()[:16]}", make)
    return Compiled(folder / "host", folder / "kernels.so")


def _refusal(design: Design, said: str) -> str:
    """The compiler's first complaint."""
    errors = [line for line in said.splitlines() if "error" in line] or said.splitlines()[:1]
    return (
        f"{design.folder}: the C++ compiler, which knows CUDA by a stand-in, refuses it: "
        f"{errors[0].strip() if errors else 'it gives no reason'}. What `harness compile {design.name}` "
        "takes and this does not, only a GPU can check."
    )


def _sources(design: Design) -> dict[str, str]:
    """The design's device code by its place below the designs' folder, machine instructions replaced."""
    found, folder = {f"{design.name}/{LAUNCH_HEADER}": launch_header.text(design)}, design.folder.resolve()
    contract = "tables_args.h" if design.all_tables else "lookup_args.h"
    if contract not in (source.name for source in design.sources):
        raise BadInputError(
            f"{design.folder / 'kernel.cuh'}: does not include {contract}, which says what a kernel is "
            f'given; add #include "{contract}".'
        )
    for source in (path.resolve() for path in design.sources):
        if source == (COMMON_DIR / source.name).resolve() and (STAND_IN / source.name).is_file():
            continue
        own = source.is_relative_to(folder)
        name = design.name / source.relative_to(folder) if own else source.relative_to(DESIGNS_DIR)
        code = text_of(source)
        for instruction in _PREFETCHES:
            code = code.replace(instruction, "emulated::note_prefetch(address);")
        if found_asm := re.search(r"^(?!\s*//).*?\basm\b", code, re.MULTILINE):
            line = code.count("\n", 0, found_asm.start()) + 1
            raise MachineError(
                f"{source}:{line}: asm is an instruction of a GPU, which the CPU cannot run. Use a word of "
                f"CUDA for it, or check {design.name} on a GPU, where `harness run` compares every output."
            )
        found[str(name)] = code
    return found


def _host_code(design: Design, wanted: Sequence[Instance]) -> str:
    """The program round the kernels: each as a symbol, a list of them, and main."""
    lines = ['#include "cuda_fp16.h"', '#include "kernel.cuh"', '#include "serve.h"', ""]
    kernels = []
    for instance in wanted:
        spread = "whole<PrepareArgs>" if instance.function == "prepare" else "whole<TablesArgs>"
        if instance.function == "lookup":
            spread = "fields<LookupArgs>"
        lines.append(f"EMULATED_KERNEL({symbol(design, instance)}, {instance.expression})")
        kernels.append(f"  {{emulated::unpacked<&{instance.expression}>, emulated::{spread}}},")
    for known in (TableRows, TablesArgs) if design.all_tables else (LookupArgs, PrepareArgs):
        size = ctypes.sizeof(known)
        lines.append(f'static_assert(sizeof({known.__name__}) == {size}, "as in arguments.py");')
    lines += ["static const emulated::Kernel kernels[] = {", *kernels, "};"]
    lines.append("int main() { return emulated::serve_all(kernels); }")
    return "\n".join(lines) + "\n"
