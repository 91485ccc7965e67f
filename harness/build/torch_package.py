"""Which PyTorch lies in a wheel or in a folder, and what of its machine code holds a kernel."""

from __future__ import annotations

import contextlib
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.build import fatbin
from harness.errors import BadInputError
from harness.progress import Progress
from harness.records import is_torch_version

_LIBRARY = re.compile(r"libtorch_cuda\w*\.so")
_MOST_TEXT = 1 << 20
"""Bytes of version.py that are read; it has a few hundred."""


@dataclass(frozen=True)
class Found:
    """A cubin."""

    code: bytes
    where: str
    """Library and position, for messages."""


@dataclass(frozen=True)
class Package:
    """A PyTorch, by its own version.py."""

    source: Path
    """As the user named it."""
    folder: Path | zipfile.Path
    """The package `torch`."""
    version: str
    """For example "2.1.0+cu121"."""
    cuda: str
    """Of the toolkit whose nvcc compiled it, for example "12.1"."""
    commit: str

    def cubins(self, kernel: str, archs: Collection[str], progress: Progress) -> dict[str, Found]:
        """By architecture, of those named, the cubin that holds a kernel of this name; at least one.

        One source's cubins lie together in one fat binary, so the first that holds the kernel is all there
        is. BadInputError where none does, or the libraries are damaged.
        """
        sought = kernel.encode()
        for path in self._libraries():
            progress.now(f"PyTorch {self.version}: reading {path.name}")
            name = f"{self.source}: {path.name}"
            with path.open("rb") as library:
                for position, binary in fatbin.binaries(library, name):
                    found: dict[str, Found] = {}
                    for entry in fatbin.entries(binary, name, position):
                        if entry.arch in archs and sought in (code := entry.cubin()):
                            found.setdefault(entry.arch, Found(code, entry.where))
                    if found:
                        return found
        raise BadInputError(
            f"{self.source}: PyTorch {self.version} holds no {kernel} for {', '.join(archs)}."
        )

    def _libraries(self) -> list[Path | zipfile.Path]:
        folder = self.folder / "lib"
        there = folder.iterdir() if folder.is_dir() else iter(())
        found = {path.name: path for path in there if _LIBRARY.fullmatch(path.name)}
        if not found:
            raise BadInputError(
                f"{self.source}: PyTorch {self.version} has no code for NVIDIA GPUs (there is no "
                "torch/lib/libtorch_cuda.so); give a build for CUDA."
            )
        return [found[name] for name in sorted(found)]


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Package]:
    """The PyTorch in a wheel, or in the folder `torch` of an installed one, or round a library of one.

    BadInputError where it is neither, also where that shows only as it is read.
    """
    installed = source.absolute().parent.parent if _LIBRARY.fullmatch(source.name) else source
    try:
        if installed.is_dir():
            yield _package(source, installed)
        else:
            with zipfile.ZipFile(source) as archive:
                yield _package(source, zipfile.Path(archive, "torch/"))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadInputError(
            f"{source}: is no wheel, or a damaged one ({error}); `pip download torch==2.1.0 --no-deps` gets "
            "one."
        ) from error
    except OSError as error:
        raise BadInputError(f"{source}: cannot be read: {error.strerror or error}.") from error


def _package(source: Path, folder: Path | zipfile.Path) -> Package:
    path = folder / "version.py"
    if not path.is_file():
        raise BadInputError(
            f"{source}: holds no PyTorch (torch/version.py is missing); give a wheel, the folder `torch` of "
            "an installed PyTorch, or what `harness baseline extract --output` made."
        )
    with path.open("rb") as file:
        text = file.read(_MOST_TEXT).decode(errors="replace")

    def value(name: str) -> str:
        found = re.search(rf"^{name}\b[^=\n]*= *['\"]([^'\"\n]*)['\"]", text, re.MULTILINE)
        return found[1] if found else ""

    version = value("__version__")
    if not is_torch_version(version):
        raise BadInputError(
            f"{source}: torch/version.py names no version such as 2.1.0, but {version[:60]!r}."
        )
    return Package(source, folder, version, value("cuda"), value("git_version"))
