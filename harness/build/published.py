"""PyTorch's own EmbeddingBag kernel, taken out of a PyTorch that others compiled: a published wheel, say.

What is taken out is a compiled design like any other, a folder with a manifest and a cubin per architecture:
`stock`, with that PyTorch's version for a toolchain. It stays in the cache, and may be measured under that
name: `stock@2.1.0+cu121`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from harness import records
from harness.build import cubin, occupancy, torch_package
from harness.build.cache import cache_dir, is_whole, make_once
from harness.build.torch_package import Found, Package
from harness.errors import BadInputError
from harness.patch import definition
from harness.patch import manifest as manifests
from harness.patch.manifest import Entry, LaunchShape, Manifest
from harness.progress import Progress, Silent
from harness.records import STOCK, is_torch_version

_KERNEL = "EmbeddingBag_updateOutputKernel_sum_mean"
_ROWS = {"f": "float32", "N3c104HalfE": "float16", "N3c108BFloat16E": "bfloat16"}
_INDICES = {"i": "int32", "l": "int64"}
_SYMBOL = re.compile(
    rf"_ZN2at6native\w*{len(_KERNEL)}{_KERNEL}I(?P<row>{'|'.join(_ROWS)})(?P<index>[il])EEv(?P<types>\w+)"
)
_TYPES = re.compile(r"PKT0_S\w_PKT_PS\w_PS\w_llllliS\w_S\w_lS\w_l")
"""Of the parameters, as the kernel's mangled name has them in PyTorch 2.1 to 2.13."""
_PARAMETERS = {
    "indices": 8,
    "offsets": 8,
    "weights": 8,
    "output": 8,
    "offset2bag": 8,
    "n_indices": 8,
    "n_bags": 8,
    "dim": 8,
    "row_stride": 8,
    "column_stride": 8,
    "mode": 4,
    "bag_size": 8,
    "sample_weights": 8,
    "sample_weight_stride": 8,
    "padding_idx": 0,
    "rows": 8,
}
"""The same by the names of lookup_args.h, in order, with their sizes in bytes; 0: as wide as an index."""
_LAUNCH = LaunchShape(32, 8, blocks=1024, bags_per_block=1, columns_per_block=0, blocks_per_sm=0)
"""As PyTorch launches it, whatever the shape."""


def find(version: str) -> Path:
    """The folder of the kernel that was taken out of this version; BadInputError where none was, or two."""
    kept = _all_kept()
    versions, found = [name for name, _ in kept], [folder for name, folder in kept if name == version]
    if len(found) > 1:
        raise BadInputError(
            f"Two kernels are here that call themselves PyTorch {version}'s; delete {found[0]} or {found[1]}."
        )
    if not found:
        raise BadInputError(
            f"The kernel of PyTorch {version} is not here (there: {', '.join(versions) or 'none'}); take it "
            "out of a wheel by `harness baseline extract WHEEL`."
        )
    return found[0]


def take(source: Path, progress: Progress | None = None) -> Path:
    """Takes the kernel out of `source`; returns the folder in the cache where it is kept.

    `source`: a wheel of PyTorch, the folder `torch` of an installed one or its libtorch_cuda.so, or a folder
    that this made. Raises BadInputError where it is none of these, is damaged, or holds no kernel that could
    be called; MachineError where the packages that read it are not installed.
    """
    if (source / manifests.MANIFEST).is_file():
        brought = _checked(source)
        return _keep(brought, {entry.cubin: (source / entry.cubin).read_bytes() for entry in brought.entries})
    with torch_package.opened(source) as package:
        found = package.cubins(_KERNEL, occupancy.LIMITS, progress or Silent())
    cubins = {_file_of(arch): one.code for arch, one in found.items()}
    return _keep(_described(package, found), cubins)


def _kept() -> Path:
    return cache_dir() / "published"


def _all_kept() -> list[tuple[str, Path]]:
    """Version and folder of every kernel there."""
    folders = [path.parent for path in sorted(_kept().glob(f"*/{manifests.MANIFEST}"))]
    return [(folder.name.rpartition("-")[0], folder) for folder in folders]


def _keep(manifest: Manifest, cubins: Mapping[str, bytes]) -> Path:
    """Puts manifest and files into the cache, in a folder whose name follows from both, unless they are there
    under another: as an older version of this program wrote them, say."""
    for version, folder in _all_kept():
        if version == manifest.toolchain and is_whole(folder):
            with contextlib.suppress(BadInputError):
                if manifests.read(folder) == manifest:
                    return folder
    key = hashlib.sha256(records.to_json(manifest).encode())
    for _, code in sorted(cubins.items()):
        key.update(code)

    def write(folder: Path) -> None:
        for name, code in cubins.items():
            (folder / name).write_bytes(code)
        manifests.write(folder, manifest)

    return make_once(_kept() / f"{manifest.toolchain}-{key.hexdigest()[:16]}", write)


def _checked(folder: Path) -> Manifest:
    """The manifest of a folder that somebody brought."""
    manifest = manifests.read(folder)
    if manifest.design != STOCK or not is_torch_version(manifest.toolchain):
        raise BadInputError(
            f"{folder}: holds {manifest.design}@{manifest.toolchain} and not a kernel of PyTorch's; give a "
            "wheel, or what `harness baseline extract --output` made of one."
        )
    definition.chosen(manifest, {}, folder)  # says what is wrong with the files
    return manifest


def _described(package: Package, cubins: Mapping[str, Found]) -> Manifest:
    """What the cubins hold, and how it is called."""
    which = f"{package.source}: PyTorch {package.version}"
    entries = []
    for arch, found in cubins.items():
        digest = hashlib.sha256(found.code).hexdigest()
        for symbol, kernel in cubin.kernels(found.code, found.where).items():
            if instance := _SYMBOL.fullmatch(symbol):
                _check_parameters(instance, kernel, which)
                entries.append(_entry(arch, symbol, instance, kernel, digest))
    if not entries:
        raise BadInputError(f"{which} has {_KERNEL} for none of {', '.join(_ROWS.values())}.")
    return Manifest(
        design=STOCK,
        source_hash=package.commit[:16],
        toolchain=package.version,
        compiler=f"nvcc {package.cuda}, in PyTorch {package.version}",
        options=[],
        launch=_LAUNCH,
        tunables={},
        dtypes=[name for name in _ROWS.values() if any(entry.dtype == name for entry in entries)],
        index_dtypes=[name for name in _INDICES.values() if any(e.index_dtype == name for e in entries)],
        modes=["sum", "mean"],
        weighted=True,
        padding=True,
        max_dim=0,
        dim_multiple=1,
        prepares=False,
        all_tables=False,
        entries=entries,
        parameters=list(_PARAMETERS),
    )


def _file_of(arch: str) -> str:
    return f"{arch}.cubin"


def _check_parameters(instance: re.Match[str], kernel: cubin.Kernel, which: str) -> None:
    index_bytes = 4 if instance["index"] == "i" else 8
    sizes = tuple(size or index_bytes for size in _PARAMETERS.values())
    if not _TYPES.fullmatch(instance["types"]) or kernel.parameter_bytes != sizes:
        raise BadInputError(
            f"{which}: its kernel takes other parameters than that of PyTorch 2.1 to 2.13, so it cannot be "
            f"called ({instance['types']}, of {', '.join(map(str, kernel.parameter_bytes))} bytes)."
        )


def _entry(arch: str, symbol: str, instance: re.Match[str], kernel: cubin.Kernel, digest: str) -> Entry:
    return Entry(
        function="lookup",
        arch=arch,
        cubin=_file_of(arch),
        symbol=symbol,
        dtype=_ROWS[instance["row"]],
        index_dtype=_INDICES[instance["index"]],
        tunables={},
        registers=kernel.registers,
        spill_bytes=kernel.stack_bytes,
        shared_bytes=kernel.shared_bytes,
        occupancy=occupancy.occupancy(
            arch,
            threads=_LAUNCH.threads_x * _LAUNCH.threads_y,
            registers=kernel.registers,
            shared_bytes=kernel.shared_bytes,
        ),
        cubin_sha256=digest,
    )
