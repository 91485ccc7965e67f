"""Files as they are read and written where somebody else may have had a hand in the folder.

Standard library only, for both sides of the container's wall use it. Nothing here follows a link inside a
folder that is held by its descriptor, waits for a pipe, or reads more than it was told to expect."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.errors import BadInputError

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without waiting: opening a pipe would wait for whoever writes into it."""
_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_AT_ONCE = 1 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_plain(path: Path, most_bytes: int, *, follow: bool = True) -> bytes:
    """The contents of a regular file.

    OSError where it cannot be opened; BadInputError where it is no regular file (without `follow`: or a
    link), or holds more than `most_bytes`."""
    return _read(str(path), None, str(path), most_bytes, follow)


def beside(folder: Path, name: str) -> str:
    """The path of what is called so in a folder, as text that is never taken for a name: of a synthetic
    trace, of a model that ships, or "-" for standard input.

    A path of one part would be, since paths lose a "./" that is written before it; it becomes absolute."""
    path = folder / name
    return str(path if len(path.parts) > 1 else path.absolute())


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees all of it or nothing, also when killed in between.

    What was there under that name is replaced, a link too: nothing is written through one. BadInputError
    where it is a device: replaced by root, /dev/null would be gone for everybody.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(path.name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                raise BadInputError(f"{path}: is a device, and is not replaced; choose another name.")
        _write_whole(descriptor, path.name, content, path)
    finally:
        os.close(descriptor)


class Folder:
    """A directory held by its descriptor: names are looked up in it and nowhere else, whatever is linked or
    renamed meanwhile. OSErrors name the path."""

    def __init__(self, descriptor: int, path: Path) -> None:
        """Takes over the descriptor. `path`: how messages call it."""
        self._descriptor = descriptor
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Folder:
        """The directory that a user names; links on the way to it are the user's own."""
        return cls(os.open(path, _DIRECTORY & ~os.O_NOFOLLOW), path)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the descriptor."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def inner(self, name: str, *, create: bool = False, mode: int = 0o777) -> Folder:
        """A directory in it; with `create` it is made where it is missing. BadInputError where it is
        something else, a link to a directory too."""
        path = self.path / _single(name)
        if create:
            try:
                os.mkdir(name, mode, dir_fd=self._descriptor)
            except FileExistsError:
                pass
            except OSError as error:
                raise _named(error, path) from error
        try:
            return Folder(os.open(name, _DIRECTORY, dir_fd=self._descriptor), path)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise BadInputError(
                    f"{path}: is {self.kind(name) or 'gone'} where a folder belongs; remove it."
                ) from None
            raise _named(error, path) from error

    def kind(self, name: str) -> str:
        """What has this name: "a file", "a link", "a folder" and so on; empty where nothing has."""
        try:
            mode = os.stat(_single(name), dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _named(error, self.path / name) from error
        return _kind(mode)

    def holds(self, name: str, folder: Folder) -> bool:
        """Whether this name is still that directory's, which may have been renamed or replaced."""
        try:
            found = os.stat(_single(name), dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(folder._descriptor))

    def settle(self) -> None:
        """Waits until what was made, renamed and removed in it is on the disk, before what depends on it."""
        os.fsync(self._descriptor)

    def read(self, name: str, most_bytes: int) -> bytes:
        """See `read_plain`; links are not followed."""
        return _read(_single(name), self._descriptor, str(self.path / name), most_bytes, False)

    def opened(self, name: str, most_bytes: int) -> int:
        """The descriptor of a regular file, to read; as strict as `read`."""
        return self._regular(name, most_bytes)

    def size(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        try:
            return os.stat(_single(name), dir_fd=self._descriptor, follow_symlinks=False).st_size
        except OSError:
            return 0

    def create(self, name: str, *, mode: int = 0o666) -> int:
        """The descriptor of a new file, to write; FileExistsError where there is something of that name."""
        try:
            return os.open(_single(name), _NEW, mode, dir_fd=self._descriptor)
        except OSError as error:
            raise _named(error, self.path / name) from error

    def write_whole(self, name: str, content: str | bytes) -> None:
        """See the function of that name."""
        _write_whole(self._descriptor, _single(name), content, self.path / name)

    def copy_in(self, name: str, source: Folder, found: str, most_bytes: int) -> None:
        """Makes `name` of the regular file `found` in another folder: its contents alone, no owner and no
        mode."""
        with os.fdopen(source._regular(found, most_bytes), "rb") as reading:
            self.take(name, reading, most_bytes)

    def take(self, name: str, reading: IO[bytes], most_bytes: int) -> None:
        """Makes `name` of what is read, up to so many bytes."""
        part = part_of(name)
        try:
            with os.fdopen(self.create(part), "wb") as writing:
                left = most_bytes
                while left > 0 and (block := reading.read(min(_AT_ONCE, left))):
                    writing.write(block)
                    left -= len(block)
            os.replace(part, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError as error:
            self.remove(part)
            raise _named(error, self.path / name) from error
        except BadInputError:
            self.remove(part)
            raise

    def _regular(self, name: str, most_bytes: int) -> int:
        return _open_regular(_single(name), self._descriptor, str(self.path / name), most_bytes, False)

    def rename(self, name: str, to: str) -> None:
        """Gives an entry another name; what has that already is replaced."""
        try:
            os.replace(_single(name), _single(to), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError as error:
            raise _named(error, self.path / name) from error

    def names(self) -> Iterator[str]:
        """What is in it, in no order."""
        with os.scandir(self._descriptor) as entries:
            for entry in entries:
                yield entry.name

    def remove(self, name: str) -> None:
        """Takes an entry away, a directory with all that is in it, however deep; nothing where there is
        none."""
        kind = self.kind(name)
        if not kind:
            return
        try:
            if kind != "a folder":
                os.unlink(name, dir_fd=self._descriptor)
                return
            _make_writable(self._descriptor, name)
            with self.inner(name) as inner:
                inner._empty()
            os.rmdir(name, dir_fd=self._descriptor)
        except OSError as error:
            raise _named(error, self.path / name) from error

    def _empty(self) -> None:
        """Removes everything. Directories further down are first moved up, so that no depth is too deep."""
        moved = 0
        while names := list(self.names()):
            for name in names:
                if self.kind(name) != "a folder":
                    os.unlink(name, dir_fd=self._descriptor)
                    continue
                _make_writable(self._descriptor, name)
                with self.inner(name) as inner:
                    for below in list(inner.names()):
                        if inner.kind(below) != "a folder":
                            os.unlink(below, dir_fd=inner._descriptor)
                            continue
                        _make_writable(inner._descriptor, below)
                        moved += 1
                        up = f".moved-{secrets.token_hex(8)}-{moved}"
                        os.rename(below, up, src_dir_fd=inner._descriptor, dst_dir_fd=self._descriptor)
                os.rmdir(name, dir_fd=self._descriptor)


def _single(name: str) -> str:
    """The name of one entry; anything that leads elsewhere is a defect of ours, or a file that was tampered
    with."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BadInputError(f"{name[:80]!r}: is not the name of a file in its folder.")
    return name


def _read(name: str, within: int | None, path: str, most_bytes: int, follow: bool) -> bytes:
    with os.fdopen(_open_regular(name, within, path, most_bytes, follow), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:  # it grew, or its reported size was wrong, as for files under /proc
        raise _too_large(path, most_bytes)
    return content


def _open_regular(name: str, within: int | None, path: str, most_bytes: int, follow: bool) -> int:
    try:
        descriptor = os.open(name, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=within)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInputError(f"{path}: is a link, which is not followed here.") from None
        if error.errno == errno.ENXIO:
            raise BadInputError(f"{path}: is a socket or a device and not a file.") from None
        raise _named(error, path) from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= most_bytes:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise _too_large(path, most_bytes)
    raise BadInputError(f"{path}: is {_kind(found.st_mode)} and not a file.")


def _too_large(path: str, most_bytes: int) -> BadInputError:
    return BadInputError(f"{path}: holds more than the {most_bytes / 2**20:.0f} MiB that it may.")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def _make_writable(within: int, name: str) -> None:
    """A directory that is about to be emptied, whatever its mode."""
    if os.stat(name, dir_fd=within, follow_symlinks=False).st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=within)


def _write_whole(within: int, name: str, content: str | bytes, path: Path) -> None:
    part = part_of(name)
    try:
        try:
            with open(os.open(part, _NEW, 0o666, dir_fd=within), "wb") as out:
                out.write(content.encode() if isinstance(content, str) else content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, name, src_dir_fd=within, dst_dir_fd=within)
        except BaseException:
            _forget(part, within)
            raise
    except OSError as error:
        raise _named(error, path) from error


def part_of(name: str) -> str:
    """The name of a file while it is written: one that nobody can have planted a link under."""
    return f".{name[:100]}.{secrets.token_hex(8)}.part"


def is_part_of(part: str, name: str) -> bool:
    """Whether `part_of` gave it for this name."""
    return part.startswith(f".{name[:100]}.") and part.endswith(".part")


def _forget(name: str, within: int) -> None:
    # It may never have been there, or its disk be gone; the error on its way says which.
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=within)


def _named(error: OSError, path: Path | str) -> OSError:
    """The same error, with a path that a user can find. OSError makes the class that fits the number."""
    return OSError(error.errno, error.strerror, str(path))
