"""Images as one file, for machines that cannot build them: told by digest, so that what runs there is what
was built here.

The file is a Docker archive, which Docker, Podman and others load. Beside it lies FILE.json with the file's
own hash and every image's id, which is the hash of its configuration and of all its layers with it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.build import daemon as daemons
from harness.build import engine, images, podman
from harness.build.images import Target
from harness.codec import SCHEMA_VERSION, load, to_json
from harness.errors import BadInputError, MachineError
from harness.files import part_of, write_whole
from harness.progress import Progress


@dataclass(frozen=True)
class Contents:
    """What an archive holds."""

    images: dict[str, str]
    """Reference → id."""
    sha256: str
    """Of the file."""
    schema_version: int = SCHEMA_VERSION


def listing_of(file: Path) -> Path:
    """Where an archive's contents are told."""
    return file.with_name(f"{file.name}.json")


def save(targets: Sequence[Target], file: Path, progress: Progress) -> Contents:
    """Writes Docker's images of these targets into a file.

    MachineError where one is missing or stale, or Docker fails; BadInputError where the file is there."""
    for path in (file, listing_of(file)):
        if path.exists():
            raise BadInputError(f"{path}: is there already; remove it, or choose another name.")
    found: dict[str, str] = {}
    with engine.connection() as client:
        for target in targets:
            if (state := images.state(client, target)) != "current":
                raise MachineError(f"The image {target.reference} is {state}; run `harness build` first.")
            found[target.reference] = str(client.images.get(target.reference).id)
    part = file.with_name(part_of(file.name))
    progress.now(f"saving {len(found)} images")
    try:
        _docker("save", "--output", str(part), *found)
        progress.now("hashing")
        made = Contents(found, _sha256(part))
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    write_whole(listing_of(file), to_json(made))
    return made


def restore(file: Path, *, into_podman: bool, progress: Progress) -> Contents:
    """Loads an archive, and makes sure that what is there now are the very images.

    BadInputError where the file is not what its listing says, MachineError where the images are not."""
    told = load(Contents, listing_of(file))
    progress.now("hashing")
    try:
        own = _sha256(file)
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}.") from error
    if own != told.sha256:
        raise BadInputError(f"{file}: is not the file that {listing_of(file)} tells of; copy both again.")
    progress.now(f"loading {len(told.images)} images")
    if into_podman:
        podman.call("load", "--input", str(file), timeout_s=None)
    else:
        _docker("load", "--input", str(file))
    for reference, wanted in told.images.items():
        if (there := _id(reference, into_podman)) != wanted:
            raise MachineError(
                f"{reference}: was loaded as {there or 'nothing'}, and is {wanted} in {file}; remove what "
                "has this name here and load again."
            )
    return told


def _id(reference: str, in_podman: bool) -> str:
    if in_podman:
        found = podman.image(reference)
        return found.id if found else ""
    with engine.connection() as client:
        return str(client.images.get(reference).id)


def _docker(*words: str) -> None:
    """The `docker` command, asking the daemon that everything else here asks."""
    environment = daemons.find().environment()
    done = subprocess.run(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | environment,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise MachineError(f"`docker {words[0]}` failed: {said[-1].rstrip('.')}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
