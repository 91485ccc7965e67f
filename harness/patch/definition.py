"""A compiled design's folder, told to the operators: which of its kernels, and what they compute."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInputError
from harness.patch import manifest as manifests
from harness.patch.manifest import Entry, LaunchShape, Manifest, SpecialKernel


def chosen(manifest: Manifest, tunables: Mapping[str, int], folder: Path) -> list[Entry]:
    """The entries compiled for these tunables, their files checked against the manifest."""
    if unknown := sorted(set(tunables) - set(manifest.tunables)):
        known = ", ".join(manifest.tunables) or "none"
        raise BadInputError(f"Design {manifest.design} has no tunable {unknown[0]!r}; known: {known}.")
    values = {**manifest.tunables, **tunables}
    for name, value in values.items():
        compiled = sorted({e.tunables[name] for e in manifest.entries if name in e.tunables})
        if compiled and value not in compiled:
            raise BadInputError(
                f"Design {manifest.design} is not compiled for {name} = {value}; "
                f"compiled: {', '.join(map(str, compiled))}."
            )
    found = [e for e in manifest.entries if all(values.get(n) == v for n, v in e.tunables.items())]
    function = "lookup_tables" if manifest.all_tables else "lookup"
    if not any(e.function == function for e in found):
        raise BadInputError(f"{folder}: lists no {function}; compile design {manifest.design} again.")
    for cubin, expected in sorted({(e.cubin, e.cubin_sha256) for e in found}):
        path = folder / cubin
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise BadInputError(
                f"{path}: is not the file that the manifest describes; compile the design again."
            )
    return found


def define(operators: Any, manifest: Manifest, tunables: Mapping[str, int], folder: Path) -> str:
    """Describes the design, with these tunables, to the operators; returns what they know it by."""
    entries = chosen(manifest, tunables, folder)
    launch, special = manifest.launch, manifest.special
    # `prepare` is launched in rows of threads.
    threads_y = [1 if e.function == "prepare" else e.threads_y or launch.threads_y for e in entries]
    files = [(e.cubin_sha256, e.symbol) for e in entries]
    identity = f"{folder.resolve()} {files} {launch} {special} {threads_y} {manifest.parameters}"
    operators.define(
        identity=identity,
        name=manifest.design,
        dtypes=manifest.dtypes,
        index_dtypes=manifest.index_dtypes,
        modes=manifest.modes,
        weighted=manifest.weighted,
        padding=manifest.padding,
        max_dim=manifest.max_dim,
        dim_multiple=manifest.dim_multiple,
        prepares=manifest.prepares,
        output_only=manifest.output_only,
        launch=_numbers(launch),
        special_functions=[s.function for s in special],
        special_launches=[number for s in special for number in _numbers(s.launch)],
        special_when=[number for s in special for number in _when(s)],
        functions=[e.function for e in entries],
        archs=[_arch_number(e.arch, folder) for e in entries],
        cubins=[str((folder / e.cubin).resolve()) for e in entries],
        symbols=[e.symbol for e in entries],
        kernel_dtypes=[e.dtype for e in entries],
        kernel_index_dtypes=[e.index_dtype for e in entries],
        kernel_output_dtypes=[e.output_dtype for e in entries],
        kernel_general=[e.general for e in entries],
        kernel_threads_y=threads_y,
        parameters=manifest.parameters,
    )
    return identity


def _numbers(launch: LaunchShape) -> list[int]:
    """In the order of the operators' own LaunchShape."""
    return [
        launch.threads_x,
        launch.blocks,
        launch.bags_per_block,
        launch.columns_per_block,
        launch.blocks_per_sm,
    ]


def _when(special: SpecialKernel) -> list[int]:
    """In the order of the operators' own Special."""
    alike = -1 if special.alike is None else int(special.alike)
    return [alike, *special.rows_per_bag, *special.bags_per_sm, special.tables_at_once]


def _arch_number(arch: str, folder: Path) -> int:
    match = re.fullmatch(r"sm_(\d+)", arch)
    if match is None:
        raise BadInputError(f"{folder / manifests.MANIFEST}: {arch!r} is not an architecture such as sm_90.")
    return int(match[1])
