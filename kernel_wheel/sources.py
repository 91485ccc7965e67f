"""What a record of the package says that it was measured of."""

from __future__ import annotations

import hashlib

from harness import designs
from kernel_wheel import library


def of_today() -> dict[str, str]:
    """Hashes: of the designs whose kernels the package has, and of its own code, which calls them."""
    kernels = designs.source_hashes()
    code = hashlib.sha256()
    for path in [*sorted(library.SOURCES.parent.glob("*.py")), *library.made_of()]:
        code.update(path.read_bytes())
    own = {"embedding_kernels": code.hexdigest()[:16]}
    return {name: kernels[name] for name in ("fused", "vectorized")} | own
