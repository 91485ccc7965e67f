"""What a compiled design is: a folder with `manifest.json` and one cubin per GPU architecture.

Written by `harness.build.kernels`, read by the patch. Standard library only: it runs in the container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from harness import codec, records
from harness.bounds import Count, Int32, Range

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_Share = Annotated[float, Range(0, 1)]
_Threads = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class Entry:
    """One kernel of one cubin: a template instance that can be launched."""

    function: str
    """"lookup", "prepare", or of a design that takes all tables "lookup_tables" or a special kernel's."""
    arch: str
    """For example "sm_90"."""
    cubin: str
    """File name within the folder."""
    symbol: str
    """Its mangled name in the cubin."""
    dtype: str
    index_dtype: str
    """Empty for `prepare`."""
    tunables: dict[str, Int32]
    """The tunables that are template arguments, with this instance's values."""
    registers: Count
    spill_bytes: Count
    """Spill stores plus spill loads, as ptxas reports them. Of a kernel that others compiled, whose report
    nobody has, its stack frame: where that is 0, nothing is spilled."""
    shared_bytes: Count
    occupancy: _Share
    """Theoretical: resident warps ÷ the most a multiprocessor of this architecture holds."""
    cubin_sha256: str
    output_dtype: str = ""
    """Of designs for all tables; otherwise empty: what a `lookup` writes has the type of its table."""
    generic: bool = True
    """Whether it serves every call; otherwise fast ones alone (see `harness.designs.Design.fast`)."""
    threads_y: Int32 = 0
    """Threads of a block in y, where they follow from the type of the rows; 0: as the launch says."""

    def problem(self) -> str:
        """Why its file would not lie in the folder; empty where it does."""
        plain = self.cubin not in ("", ".", "..") and "/" not in self.cubin
        return "" if plain else "cubin: is not the name of a file in this folder"


@dataclass(frozen=True)
class LaunchShape:
    """How blocks follow from the work; see `harness.designs.Launch`."""

    threads_x: _Threads
    threads_y: _Threads
    blocks: Int32
    bags_per_block: Int32
    columns_per_block: Int32
    blocks_per_sm: Int32


@dataclass(frozen=True)
class SpecialKernel:
    """A kernel for fast calls of some shapes; see `harness.designs.Special` and `When`."""

    function: str
    launch: LaunchShape
    rows_per_bag: tuple[Int32, Int32]
    bags_per_sm: tuple[Int32, Int32]
    alike: bool | None = None
    tables_at_once: Int32 = 0
    columns: tuple[Int32, Int32] = (0, 0)


@dataclass(frozen=True)
class Manifest:
    """One design under one toolchain, for every architecture that it was compiled for."""

    design: str
    source_hash: str
    toolchain: str
    compiler: str
    """For example "NVRTC 12.1.105"."""
    options: list[str]
    launch: LaunchShape
    tunables: dict[str, Int32]
    """Every tunable with its default."""
    dtypes: list[str]
    index_dtypes: list[str]
    modes: list[str]
    weighted: bool
    padding: bool
    max_dim: Int32
    dim_multiple: Int32
    prepares: bool
    all_tables: bool
    entries: list[Entry] = field(default_factory=list)
    output_only: bool = False
    """Whether it writes nothing but the output where no gradient is wanted."""
    special: list[SpecialKernel] = field(default_factory=list)
    """In the order in which they are tried."""
    parameters: list[str] = field(default_factory=list)
    """Of a `lookup` that takes fewer fields of lookup_args.h, or takes them in another order: their names, in
    its order. Empty: as that file has them."""
    schema_version: Annotated[int, Range(1, SCHEMA_VERSION)] = SCHEMA_VERSION


def read(folder: Path) -> Manifest:
    """The manifest of a compiled design; BadInputError where the folder holds none."""
    path = folder / MANIFEST
    return codec.typed(Manifest, _as_today(codec.read_json(path)), path)


def _as_today(raw: Any) -> Any:
    """What a manifest holds, by the fields of today: `generic` was `general`, and launches once had a
    `rows_per_block`, which says nothing where it is [0, 0]."""
    if isinstance(raw, dict) and isinstance(raw.get("entries"), list):
        for entry in raw["entries"]:
            if isinstance(entry, dict) and "general" in entry and "generic" not in entry:
                entry["generic"] = entry.pop("general")
        launch = raw.get("launch")
        if isinstance(launch, dict) and launch.get("rows_per_block") == [0, 0]:
            del launch["rows_per_block"]
    return raw


def write(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest; last, since its presence says that the folder is complete."""
    records.write_whole(folder / MANIFEST, records.to_json(manifest))
