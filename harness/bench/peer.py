"""Another library, measured in a design's place through the `peer.py` of its folder."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness import wall
from harness.bench import libraries
from harness.bench.batch import Batch, Bind, Lookup
from harness.bench.failures import CellError


@dataclass(frozen=True)
class Peer:
    """What `peer.py` holds.

    `make(batch, tunables)` takes what the library needs of the batch's tables and gives a function, which
    makes of that batch, or of another of the same tables, the call that looks up all tables, [batch, tables *
    dim]; `version()` says what is measured, for example "FBGEMM 1.6.0". Where they are there, FOLDER says
    where the library lies, a Path, and VALUES_IN_FLOAT16 = True that quantised values are rounded to float16
    before they are added up.
    """

    name: str
    source_hash: str
    """Of `peer.py`."""
    module: ModuleType
    tunables: Mapping[str, int]
    """What the cell sets of them."""

    def make(self, batch: Batch) -> Bind:
        """Makes of batches the calls of a pass; with a copy of the tables where the library keeps them in a
        way of its own."""
        call_of: Callable[[Batch], Lookup] = self.module.make(batch, self.tunables)
        return lambda given: [call_of(given)]

    @property
    def version(self) -> str:
        """What is measured, in words."""
        return str(self.module.version())

    @property
    def values_in_float16(self) -> bool:
        """Whether the check grants that rounding."""
        return bool(getattr(self.module, "VALUES_IN_FLOAT16", False))

    def libraries(self) -> dict[str, str]:
        """Which shared libraries of its folder this process has loaded by now; see `libraries.loaded`."""
        folder = getattr(self.module, "FOLDER", None)
        return {} if folder is None else libraries.loaded(Path(folder))


def load(name: str, tunables: Mapping[str, int]) -> Peer:
    """The peer in the folder that HARNESS_PEER names; CellError where it is another, or its library is not
    there."""
    folder = Path(os.environ.get("HARNESS_PEER", ""))
    if folder.name != name:
        found = f"{folder.name} is what" if folder.name else "HARNESS_PEER names no peer that"
        raise CellError(f"The cell asks for {name}, but {found} this process carries.")
    path = folder / wall.PEER
    try:
        spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a library of others raises when it is loaded
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CellError(
            f"{name} cannot be loaded here ({said}): measure it in its image (`harness build {name}`), or"
            f" install what opt_designs/{name}/requirements.txt lists beside this PyTorch."
        ) from error
    return Peer(name, wall.peer_hash(path), module, tunables)
