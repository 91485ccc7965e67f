"""The kernels that the wheel carries: those of `fused` and `vectorized`, for every GPU that it may meet.

Of each a folder with a fat binary for each type of rows, and `kernels.txt`, which says what is in them and
when each is launched; embedding_kernels/csrc/kernels.cpp reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness import designs
from harness.build import launch_header
from harness.build.cache import cache_dir, make_once
from harness.build.instances import Instance
from harness.build.toolchain import Installation, find, install
from harness.design_source import COMMON_DIR, DESIGNS_DIR, LAUNCH_HEADER, text_of
from harness.designs import Design, Launch, RowType
from harness.errors import BadInputError
from kernel_wheel import fatbin

DESIGNS = {"fused": DESIGNS_DIR, "vectorized": Path(__file__).with_name("designs")}
"""By name, the folder of its folder. `vectorized` of opt_designs is for one table in the place of
nn.EmbeddingBag, and a wrong row number ends the process's use of the GPU; the one here takes what `fused`
takes."""
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

    design: str
    row_type: RowType
    arch: int
    ptx: bool

    @property
    def target(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.arch}"


def build(folder: Path, archs: Sequence[int] = ARCHS, *, ptx: bool = True) -> None:
    """Writes every design's fat binaries and kernels.txt. What was compiled once comes from the cache.

    `archs`: 90 for sm_90. BadInputError where serving cannot launch a design, CompilationError
    where its source is refused.
    """
    installed = install(find(TOOLCHAIN))
    targets = [(arch, False) for arch in archs] + ([(PTX, True)] if ptx else [])
    units = [_Unit(name, row_type, *target) for name in DESIGNS for row_type in OUTPUTS for target in targets]
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(units, pool.map(lambda unit: _compiled(installed, unit), units), strict=True))
    for name in DESIGNS:
        into = folder / name
        into.mkdir(parents=True, exist_ok=True)
        symbols: dict[str, str] = {}
        for row_type in OUTPUTS:
            of_type = {unit: path for unit, path in made.items() if unit[:2] == (name, row_type)}
            code = {unit: (path / "code").read_bytes() for unit, path in of_type.items()}
            cubins = {unit.arch: binary for unit, binary in code.items() if not unit.ptx}
            texts = {unit.arch: text for unit, text in code.items() if unit.ptx}
            (into / f"{row_type}.fatbin").write_bytes(fatbin.pack(cubins, texts))
            for path in of_type.values():
                symbols |= json.loads((path / "symbols.json").read_text(encoding="utf-8"))
        lines = description(design(name), archs, symbols, ptx=ptx)
        (into / "kernels.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def design(name: str) -> Design:
    """One of DESIGNS; BadInputError where it is none that serving can launch."""
    found = designs.get(name, DESIGNS[name])
    launches = [found.launch, *(special.launch for special in found.special)]
    if not found.all_tables or found.prepares or found.tunables or found.max_registers:
        raise BadInputError(f"Design {name} is not one that embedding_kernels can launch.")
    if any(launch.blocks or launch.columns_per_block for launch in launches):
        raise BadInputError(f"Design {name} launches blocks in a way that embedding_kernels has not.")
    return found


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


def _compiled(installed: Installation, unit: _Unit) -> Path:
    """The folder with `code` and `symbols.json`."""
    chosen = design(unit.design)
    expressions = [instance.expression for instance in instances(chosen, unit.row_type)]
    options = [f"--gpu-architecture={unit.target}", "--std=c++17", *chosen.compiler_options]
    headers = {LAUNCH_HEADER: launch_header.text(chosen)}
    facts = json.dumps([chosen.source_hash, headers, find(TOOLCHAIN).packages, options, expressions])
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    folder = cache_dir() / "served" / f"{unit.row_type}-{unit.target}-{key}"

    def compile_into(scratch: Path) -> None:
        include_dirs = (chosen.folder, COMMON_DIR, DESIGNS_DIR, *installed.include_dirs)
        given = [*options, *(f"--include-path={path}" for path in include_dirs)]
        source = text_of(chosen.folder / "kernel.cuh")
        name = f"{chosen.name}/kernel.cuh"
        compiled = installed.nvrtc.compile(source, name, given, expressions, headers=headers, ptx=unit.ptx)
        (scratch / "code").write_bytes(compiled.code)
        (scratch / "symbols.json").write_text(json.dumps(compiled.symbols), encoding="utf-8")

    return make_once(folder, compile_into)


def description(design: Design, archs: Sequence[int], symbols: dict[str, str], *, ptx: bool) -> list[str]:
    """The lines of kernels.txt. `symbols`: mangled names by instances' expressions."""
    lines = [f"driver {NEEDED_DRIVER}", *(f"arch {arch}" for arch in archs), *([f"ptx {PTX}"] if ptx else [])]
    # Which calls have the instance without `generic`: `fused` has other kernels for tables that differ.
    alike = 1 if design.special else -1
    lines.append(_route("any", "lookup_tables", design.launch, 0, alike, (0, 0), (0, 0), (0, 0)))
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
                    when.columns,
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
                f"kernel {instance.function} {types} {int(instance.generic or False)} {threads_y} {symbol}"
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
    columns: tuple[int, int],
) -> str:
    numbers = [
        launch.threads[0],
        launch.bags_per_block,
        launch.blocks_per_sm,
        tables_at_once,
        alike,
        *rows_per_bag,
        *bags_per_sm,
        *columns,
    ]
    return f"{what} {function} {' '.join(map(str, numbers))}"
