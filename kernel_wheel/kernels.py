"""The kernels that the wheel carries: those of the design `fused`, for every GPU that it may meet.

A fat binary for each type of rows, and `kernels.txt`, which says what is in them and when each is launched;
embedding_kernels/csrc/kernels.cpp reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness import designs
from harness.build.cache import cache_dir, make_once
from harness.build.instances import Instance
from harness.build.toolchain import Installation, find, install
from harness.design_source import COMMON_DIR, DESIGNS_DIR
from harness.designs import Design, Launch, RowType
from harness.errors import BadInputError
from kernel_wheel import fatbin

DESIGN = "fused"
TOOLCHAIN = "13.0"
NEEDED_DRIVER = 13000
"""As cuDriverGetVersion says it: what loads code of this toolchain."""
ARCHS = (80, 86, 89, 90, 100, 120)
PTX = 120
OUTPUTS: dict[RowType, tuple[str, ...]] = {
    "float32": ("float32", "float16", "bfloat16"),
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "int8": ("float16", "float32", "bfloat16"),
    "int4": ("float16", "float32", "bfloat16"),
}
"""By the type of the rows, what lookups write."""
_INDICES = ("int32", "int64")


class _Unit(NamedTuple):
    """What is compiled at a time."""

    row_type: RowType
    arch: int
    ptx: bool

    @property
    def target(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.arch}"


def build(folder: Path, archs: Sequence[int] = ARCHS, *, ptx: bool = True) -> None:
    """Writes the fat binaries and kernels.txt. What was compiled once comes from the cache.

    `archs`: 90 for sm_90. BadInputError where serving cannot launch the design, CompilationError
    where its source is refused.
    """
    design = designs.get(DESIGN)
    _check(design)
    installed = install(find(TOOLCHAIN))
    units = [_Unit(row_type, arch, False) for row_type in OUTPUTS for arch in archs]
    units += [_Unit(row_type, PTX, True) for row_type in OUTPUTS] if ptx else []
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(units, pool.map(lambda unit: _compiled(design, installed, unit), units), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for row_type in OUTPUTS:
        of_type = {
            unit: (path / "code").read_bytes() for unit, path in made.items() if unit.row_type == row_type
        }
        cubins = {unit.arch: code for unit, code in of_type.items() if not unit.ptx}
        texts = {unit.arch: code for unit, code in of_type.items() if unit.ptx}
        (folder / f"{row_type}.fatbin").write_bytes(fatbin.pack(cubins, texts))
    symbols: dict[str, str] = {}
    for path in made.values():
        symbols |= json.loads((path / "symbols.json").read_text(encoding="utf-8"))
    lines = description(design, archs, symbols, ptx=ptx)
    (folder / "kernels.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def instances(design: Design, row_type: RowType) -> list[Instance]:
    """Every template instance for a type of rows."""
    found = []
    for output in OUTPUTS[row_type]:
        for index in _INDICES:
            found += [
                Instance("lookup_tables", row_type, index, {}, output, generic) for generic in (False, True)
            ]
            found += [
                Instance(special.kernel, row_type, index, {}, output)
                for special in design.special
                if row_type in (special.dtypes or design.supports.dtypes)
            ]
    return found


def _check(design: Design) -> None:
    launches = [design.launch, *(special.launch for special in design.special)]
    if not design.all_tables or design.prepares or design.tunables or design.max_registers:
        raise BadInputError(f"Design {design.name} is not one that embedding_kernels can launch.")
    if any(launch.blocks or launch.columns_per_block for launch in launches):
        raise BadInputError(f"Design {design.name} launches blocks in a way that embedding_kernels has not.")


def _compiled(design: Design, installed: Installation, unit: _Unit) -> Path:
    """The folder with `code` and `symbols.json`."""
    expressions = [instance.expression for instance in instances(design, unit.row_type)]
    options = [f"--gpu-architecture={unit.target}", "--std=c++17", *design.compiler_options]
    facts = json.dumps([design.source_hash, find(TOOLCHAIN).packages, options, expressions])
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    folder = cache_dir() / "served" / f"{unit.row_type}-{unit.target}-{key}"

    def compile_into(scratch: Path) -> None:
        include_dirs = (design.folder, COMMON_DIR, DESIGNS_DIR, *installed.include_dirs)
        given = [*options, *(f"--include-path={path}" for path in include_dirs)]
        source = (design.folder / "kernel.cuh").read_text(encoding="utf-8")
        name = f"{design.name}/kernel.cuh"
        compiled = installed.nvrtc.compile(source, name, given, expressions, ptx=unit.ptx)
        (scratch / "code").write_bytes(compiled.code)
        (scratch / "symbols.json").write_text(json.dumps(compiled.symbols), encoding="utf-8")

    return make_once(folder, compile_into)


def description(design: Design, archs: Sequence[int], symbols: dict[str, str], *, ptx: bool) -> list[str]:
    """The lines of kernels.txt. `symbols`: mangled names by instances' expressions."""
    lines = [f"driver {NEEDED_DRIVER}", *(f"arch {arch}" for arch in archs), *([f"ptx {PTX}"] if ptx else [])]
    lines.append(_route("any", "lookup_tables", design.launch, 0, -1, (0, 0), (0, 0)))
    for special in design.special:
        for when in special.when:
            alike = -1 if when.alike is None else int(when.alike)
            lines.append(
                _route(
                    "special",
                    special.kernel,
                    special.launch,
                    special.tables_at_once,
                    alike,
                    when.rows_per_bag,
                    when.bags_per_sm,
                )
            )
    launches = {special.kernel: special.launch for special in design.special}
    for row_type in OUTPUTS:
        for instance in instances(design, row_type):
            launch = launches.get(instance.function, design.launch)
            threads_y = launch.threads_y_of.get(row_type, launch.threads[1])
            types = f"{row_type} {instance.output_dtype} {instance.index_dtype}"
            symbol = symbols[instance.expression]
            lines.append(
                f"kernel {instance.function} {types} {int(instance.general or False)} {threads_y} {symbol}"
            )
    return lines


def _route(
    what: str,
    function: str,
    launch: Launch,
    tables_at_once: int,
    alike: int,
    rows_per_bag: tuple[int, int],
    bags_per_sm: tuple[int, int],
) -> str:
    numbers = [
        launch.threads[0],
        launch.bags_per_block,
        launch.blocks_per_sm,
        tables_at_once,
        alike,
        *rows_per_bag,
        *bags_per_sm,
    ]
    return f"{what} {function} {' '.join(map(str, numbers))}"
