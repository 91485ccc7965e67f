"""Manifests' entries for the kernels of our designs as the emulator has them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness import designs
from harness.build import instances
from harness.design_source import DESIGNS_DIR
from harness.designs import Design
from harness.emulator.checking import threads_of
from harness.emulator.compilation import symbol
from harness.patch.manifest import Entry

FOR_TESTS = Path(__file__).resolve().parents[2] / "data"


def ours(name: str) -> Design:
    """One of our designs, or of those that are for tests."""
    return designs.get(name, FOR_TESTS if (FOR_TESTS / name).is_dir() else DESIGNS_DIR)


def entries(
    folder: Path, name: str, *, archs: Sequence[str] = ("sm_90",), **only: Sequence[object]
) -> list[Entry]:
    """Those of a design, with files in place of cubins; `only`: of these tunables and fields of Instance the
    values that are wanted."""
    design, found = ours(name), []
    special = [special.kernel for special in design.special]
    for arch in archs:
        cubin, image = f"{arch}.cubin", f"stands for a cubin of {arch}".encode()
        (folder / cubin).write_bytes(image)
        for made in instances.of(design):
            facts = {**vars(made), **made.tunables}
            if any(facts[key] not in values for key, values in only.items() if key in facts):
                continue
            found.append(
                Entry(
                    function=made.function,
                    arch=arch,
                    cubin=cubin,
                    symbol=symbol(design, made),
                    dtype=made.dtype,
                    index_dtype=made.index_dtype,
                    tunables=made.tunables,
                    registers=42,
                    spill_bytes=0,
                    shared_bytes=0,
                    occupancy=0.5,
                    cubin_sha256=hashlib.sha256(image).hexdigest(),
                    output_dtype=made.output_dtype,
                    generic=made.generic is not False and made.function not in special,
                    threads_y=threads_of(design, made)[1],
                )
            )
    return found
