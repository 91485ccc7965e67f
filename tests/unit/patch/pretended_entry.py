"""A manifest's entry for a kernel that nobody compiled, and a file in place of its cubin."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.patch.manifest import Entry


def entry(
    folder: Path,
    function: str,
    arch: str,
    dtype: str,
    index_dtype: str,
    output_dtype: str = "",
    general: bool = True,
    **tunables: int,
) -> Entry:
    cubin = f"{arch}.cubin"
    image = f"stands for a cubin of {arch}".encode()
    (folder / cubin).write_bytes(image)
    values = "_".join(f"{name}{value}" for name, value in tunables.items())
    words = [function, dtype, *([output_dtype] if output_dtype else []), index_dtype, values]
    if output_dtype or not general:
        words[-1] = "general" if general else "plain"
    return Entry(
        function=function,
        arch=arch,
        cubin=cubin,
        symbol="_".join(words),
        dtype=dtype,
        index_dtype=index_dtype,
        tunables=tunables,
        registers=42,
        spill_bytes=0,
        shared_bytes=0,
        occupancy=0.5,
        cubin_sha256=hashlib.sha256(image).hexdigest(),
        output_dtype=output_dtype,
        general=general,
    )
