"""Designs into machine code: `design.toml` and `kernel.cuh` through NVRTC into cubins and a manifest.

What was compiled once is kept, by content, in the cache.

Runs on any machine, with a GPU or without. In an image's build it is called as

    python -m harness.build.kernels DESIGN --toolchain VERSION [--arch sm_90 ...] --output DIR

and then needs pip, pydantic, filelock and, unless HARNESS_CACHE_DIR is set, platformdirs; nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from harness import design_checks, designs
from harness.build import instances, launch_header, nvrtc, occupancy, published, resources
from harness.build.cache import cache_dir, make_once
from harness.build.instances import Instance
from harness.build.toolchain import Installation, Toolchain, find, install, toolchains
from harness.design_source import COMMON_DIR, DESIGNS_DIR, LAUNCH_HEADER, text_of
from harness.designs import Design
from harness.errors import BadInputError, HarnessError, unwritable
from harness.patch import manifest as manifests
from harness.patch.manifest import Entry, LaunchShape, Manifest, SpecialKernel
from harness.progress import Progress, Silent
from harness.records import STOCK, is_torch_version, write_whole

__all__ = [
    "Toolchain",
    "archs_for",
    "cache_dir",
    "compile_all",
    "compile_design",
    "export",
    "rows",
    "toolchains",
]

_INSTANCES_AT_A_TIME = 16
# What is written depends on these as much as on the design, so the cache's key covers them too.
_OTHER_CODE = (instances, launch_header, manifests, nvrtc, occupancy, resources)
_OWN_CODE = [Path(__file__), *(Path(str(module.__file__)) for module in _OTHER_CODE)]


def compile_design(
    design: Design,
    toolchain: str,
    archs: Sequence[str] | None = None,
    *,
    usual_only: bool = False,
    at_once: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of the compiled design, from the cache where nothing that counts has changed.

    `stock` under a PyTorch's version is what was taken out of that PyTorch, for its archs (see `published`).
    `archs`: for example ["sm_90"]; None: those of toolchains.toml. `usual_only`: for float32 and int64 and
    with the tunables' defaults alone, to look at and not to run. `at_once`: in so many threads; None: in as
    many as there are cores. Raises BadInputError for a design without device code and for unknown names,
    CompilationError where the compiler refuses the source, MachineError where the compiler cannot be had.
    """
    if design.name == STOCK and is_torch_version(toolchain):
        return published.find(toolchain)
    if not design.compiled:
        raise BadInputError(f"Design {design.name} brings no kernel of its own; there is nothing to compile.")
    design_checks.check_kernels(design)
    chosen = find(toolchain)
    archs = _checked_archs(archs if archs is not None else chosen.archs)
    wanted = instances.usual(design) if usual_only else instances.of(design)
    key = _content_key(design, chosen, archs)
    folder = cache_dir() / "compiled" / f"{design.name}-{chosen.name}-{key}{'-usual' * usual_only}"
    return make_once(
        folder,
        lambda scratch: _compile(
            design, chosen, archs, wanted, scratch, at_once or os.cpu_count(), progress or Silent()
        ),
    )


def archs_for(toolchain: str, capability: tuple[int, int]) -> list[str] | None:
    """Of what a toolchain compiles for, the one that a GPU of this compute capability runs; None: none does.

    A cubin runs on GPUs of its own major version whose minor version is not less. None, too, for a PyTorch's
    version, whose kernels are compiled already.
    """
    if is_torch_version(toolchain):
        return None
    major, minor = capability
    numbers = [int(arch.removeprefix("sm_")) for arch in find(toolchain).archs]
    fitting = [number for number in numbers if number // 10 == major and number % 10 <= minor]
    return [f"sm_{max(fitting)}"] if fitting else None


def compile_all(
    names: Sequence[str] = (),
    versions: Sequence[str] = (),
    archs: Sequence[str] = (),
    *,
    usual_only: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """The folders of these designs compiled by these toolchains for these GPUs; empty: of all there are.
    `usual_only`: see `compile_design`."""
    progress = progress or Silent()
    wanted = [designs.get(name) for name in names] or [d for d in designs.discover().values() if d.compiled]
    pairs = list(itertools.product(wanted, versions or toolchains()))
    progress.expect(len(pairs))

    def compiled(pair: tuple[Design, str]) -> Path:
        folder = compile_design(
            *pair, archs or None, usual_only=usual_only, at_once=1 if usual_only else None, progress=progress
        )
        progress.advance()
        return folder

    if not usual_only:  # one design alone keeps every core busy
        return list(map(compiled, pairs))
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return list(pool.map(compiled, pairs))
    finally:
        pool.shutdown(cancel_futures=True)


def export(compiled: Iterable[Path], output: Path) -> None:
    """Copies compiled designs to `output`/<design>-<toolchain>.

    BadInputError where the folder cannot be written, MachineError where the disk is full.
    """
    for folder in compiled:
        done = manifests.read(folder)
        _copy(folder, output / f"{done.design}-{done.toolchain}")


def _copy(compiled: Path, output: Path) -> None:
    """Each file whole, the manifest last: with it the folder is complete."""
    manifest = compiled / manifests.MANIFEST
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in (*sorted(compiled.glob("*.cubin")), manifest):
            write_whole(output / path.name, path.read_bytes())
    except OSError as error:
        raise unwritable(error.filename or output, error) from error


def rows(compiled: Iterable[Path], *, all_instances: bool = False) -> list[dict[str, Any]]:
    """What `harness compile` prints of compiled designs, a mapping per kernel.

    Unless all instances are asked for: float32 and int64 only, template tunables at their defaults.
    """
    found = []
    for done in map(manifests.read, compiled):
        for entry in done.entries:
            usual = entry.dtype == "float32" and entry.index_dtype in ("int64", "")
            rewritten = entry.output_dtype not in ("", entry.dtype)
            values = f"{entry.dtype} to {entry.output_dtype}" if rewritten else entry.dtype
            default = all(done.tunables[name] == value for name, value in entry.tunables.items())
            if all_instances or (usual and default):
                settings = [] if entry.generic else ["fast"]
                settings += [f"{name}={value}" for name, value in entry.tunables.items()]
                found.append(
                    {
                        "design": done.design,
                        "kernel": " ".join([entry.function, *settings]),
                        "toolchain": done.toolchain,
                        "arch": entry.arch,
                        "types": ", ".join(filter(None, (values, entry.index_dtype))),
                        "registers": entry.registers,
                        "spill_bytes": entry.spill_bytes,
                        "shared_bytes": entry.shared_bytes,
                        "occupancy": entry.occupancy,
                    }
                )
    return found


def _checked_archs(archs: Sequence[str]) -> list[str]:
    if not archs:
        raise BadInputError("No GPU architecture was given to compile for.")
    for arch in archs:
        if arch not in occupancy.LIMITS:
            raise BadInputError(
                f"{arch!r} is no known GPU architecture; known: {', '.join(occupancy.LIMITS)}."
            )
    return sorted(set(archs), key=list(occupancy.LIMITS).index)


def _content_key(design: Design, chosen: Toolchain, archs: Sequence[str]) -> str:
    facts = json.dumps([design.source_hash, chosen.name, chosen.packages, archs])
    key = hashlib.sha256(facts.encode())
    for code in _OWN_CODE:
        key.update(code.read_bytes())
    return key.hexdigest()[:16]


def _compile(
    design: Design,
    chosen: Toolchain,
    archs: Sequence[str],
    wanted: Sequence[Instance],
    folder: Path,
    at_once: int | None,
    progress: Progress,
) -> None:
    progress.now(f"{chosen.compiler}: loading")
    installed = install(chosen)
    supported = [arch for arch in occupancy.LIMITS if arch in installed.nvrtc.supported_archs()]
    for arch in archs:
        if arch not in supported:
            raise BadInputError(
                f"Toolchain {chosen.name} cannot compile for {arch}; it can for {', '.join(supported)}."
            )

    options = ["--std=c++17", *design.compiler_options]
    if design.max_registers:
        options.append(f"--maxrregcount={design.max_registers}")

    def compiled(unit: tuple[str, Path, Sequence[Instance]]) -> list[Entry]:
        arch, cubin, wanted = unit
        progress.now(f"{design.name}, NVRTC {chosen.name}, {arch}: compiling")
        return _compile_unit(design, installed, arch, options, cubin, wanted)

    # The compiler is a library that lets go of Python's lock, so threads are enough to use every core.
    with ThreadPoolExecutor(at_once) as pool:
        entries = list(itertools.chain.from_iterable(pool.map(compiled, _units(wanted, archs, folder))))
    manifests.write(folder, _describe(design, chosen, options, entries))


def _units(
    wanted: Sequence[Instance], archs: Sequence[str], folder: Path
) -> Iterable[tuple[str, Path, Sequence[Instance]]]:
    """What is compiled at a time: an architecture, its file, and some of the instances."""
    several = len(wanted) > _INSTANCES_AT_A_TIME
    for arch in archs:
        for start in range(0, len(wanted), _INSTANCES_AT_A_TIME):
            name = f"{arch}-{start // _INSTANCES_AT_A_TIME + 1}.cubin" if several else f"{arch}.cubin"
            yield arch, folder / name, wanted[start : start + _INSTANCES_AT_A_TIME]


def _compile_unit(
    design: Design,
    installed: Installation,
    arch: str,
    options: Sequence[str],
    cubin: Path,
    wanted: Sequence[Instance],
) -> list[Entry]:
    source = design.folder / "kernel.cuh"
    include_dirs = (design.folder, COMMON_DIR, DESIGNS_DIR, *installed.include_dirs)
    compiled = installed.nvrtc.compile(
        text_of(source),
        f"{design.name}/kernel.cuh",
        [
            f"--gpu-architecture={arch}",
            "--ptxas-options=-v",
            *options,
            *(f"--include-path={path}" for path in include_dirs),
        ],
        [instance.expression for instance in wanted],
        headers={LAUNCH_HEADER: launch_header.text(design)},
    )
    cubin.write_bytes(compiled.code)
    used = resources.from_report(compiled.log)
    special = {special.kernel: special.launch for special in design.special}
    entries = []
    for instance in wanted:
        launch = special.get(instance.function, design.launch)
        threads_y = launch.threads_y_of.get(cast(designs.RowType, instance.dtype), launch.threads[1])
        symbol = compiled.symbols[instance.expression]
        kernel = used[symbol]
        entries.append(
            Entry(
                function=instance.function,
                arch=arch,
                cubin=cubin.name,
                symbol=symbol,
                dtype=instance.dtype,
                index_dtype=instance.index_dtype,
                tunables=instance.tunables,
                registers=kernel.registers,
                spill_bytes=kernel.spill_bytes,
                shared_bytes=kernel.shared_bytes,
                occupancy=occupancy.occupancy(
                    arch,
                    threads=launch.threads[0] * threads_y,
                    registers=kernel.registers,
                    shared_bytes=kernel.shared_bytes,
                ),
                cubin_sha256=hashlib.sha256(compiled.code).hexdigest(),
                output_dtype=instance.output_dtype,
                generic=instance.generic is not False and instance.function not in special,
                threads_y=threads_y,
            )
        )
    return entries


def _describe(design: Design, chosen: Toolchain, options: Sequence[str], entries: list[Entry]) -> Manifest:
    supports = design.supports
    return Manifest(
        design=design.name,
        source_hash=design.source_hash,
        toolchain=chosen.name,
        compiler=chosen.compiler,
        options=list(options),
        launch=_shape(design.launch),
        tunables={name: tunable.default for name, tunable in design.tunables.items()},
        dtypes=list(supports.dtypes),
        index_dtypes=list(supports.index_dtypes),
        modes=list(supports.modes),
        weighted=supports.weighted,
        padding=supports.padding,
        max_dim=supports.max_dim,
        dim_multiple=supports.dim_multiple,
        prepares=design.prepares,
        all_tables=design.all_tables,
        entries=entries,
        output_only=design.output_only,
        special=[
            SpecialKernel(
                special.kernel,
                _shape(special.launch),
                when.rows_per_bag,
                when.bags_per_sm,
                when.alike,
                special.tables_at_once,
                when.columns,
            )
            for special in design.special
            for when in special.when
        ],
    )


def _shape(launch: designs.Launch) -> LaunchShape:
    return LaunchShape(
        threads_x=launch.threads[0],
        threads_y=launch.threads[1],
        blocks=launch.blocks,
        bags_per_block=launch.bags_per_block,
        columns_per_block=launch.columns_per_block,
        blocks_per_sm=launch.blocks_per_sm,
    )


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.build.kernels", description="Compiles one design."
    )
    parser.add_argument("design")
    parser.add_argument("--toolchain", required=True, help="an NVRTC version that toolchains.toml names")
    parser.add_argument("--arch", action="append", help="for example sm_90; may be repeated")
    parser.add_argument("--output", type=Path, required=True, help="folder for manifest.json and the cubins")
    given = parser.parse_args()
    try:
        compiled = compile_design(designs.get(given.design), given.toolchain, given.arch)
        _copy(compiled, given.output)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
