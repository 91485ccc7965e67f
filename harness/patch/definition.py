"""A compiled design's folder, told to the operators: which of its kernels, and what they compute."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInputError
from harness.patch import manifest as manifests
from harness.patch.manifest import Entry, Manifest


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
    """Describes the design, with these tunables, to the operators; returns what they know it by.

    The operators' arguments are named as the manifest's fields. Until the last call it cannot be applied.
    """
    kernels = [_kernel(entry, manifest, folder) for entry in chosen(manifest, tunables, folder)]
    told = repr((dataclasses.replace(manifest, entries=[]), kernels))
    identity = hashlib.sha256(told.encode()).hexdigest()
    _tell(operators.begin_design, {**vars(manifest), **vars(manifest.launch)})
    for special in manifest.special:
        _tell(operators.add_special, {**vars(special), **vars(special.launch)})
    for kernel in kernels:
        _tell(operators.add_kernel, kernel)
    operators.complete_design(identity)
    return identity


def _kernel(entry: Entry, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """What a manifest says of a kernel, with what follows from the design and the folder."""
    # `prepare` is launched in rows of threads.
    threads_y = 1 if entry.function == "prepare" else entry.threads_y or manifest.launch.threads_y
    return {
        **vars(entry),
        "arch": _arch_number(entry.arch, folder),
        "cubin": str((folder / entry.cubin).resolve()),
        "threads_y": threads_y,
        "parameters": manifest.parameters if entry.function == "lookup" else [],
    }


def _tell(operator: Any, facts: Mapping[str, Any]) -> None:
    """Tells an operator those of the facts that it asks for, each by its name."""
    names = [argument.name for argument in operator.default._schema.arguments]
    if unknown := [name for name in names if name not in facts]:
        raise BadInputError(
            f"The patch's library asks for {unknown[0]!r} of a design, which this version does not know: it "
            "was built from other sources. Build it again with python -m harness.patch.build."
        )
    operator(**{name: facts[name] for name in names})


def _arch_number(arch: str, folder: Path) -> int:
    match = re.fullmatch(r"sm_(\d+)", arch)
    if match is None:
        raise BadInputError(f"{folder / manifests.MANIFEST}: {arch!r} is not an architecture such as sm_90.")
    return int(match[1])
