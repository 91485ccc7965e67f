"""Commands over images as files: images save, images load."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.shared import DesignName, PathName, say


@click.group(short_help="Take images to machines that cannot build them.")
def images() -> None:
    """Take images to machines that cannot build them, and know them there by their digests."""


@images.command(short_help="Write images into FILE, and their digests beside it.")
@click.argument("file", type=PathName())
@click.option("--design", "names", multiple=True, type=DesignName(), help="Only this one's; repeatable.")
@click.option("--toolchain", "versions", multiple=True, help="NVRTC version; repeatable. Default: all.")
def save(file: Path, names: tuple[str, ...], versions: tuple[str, ...]) -> None:
    """Write Docker's images into FILE, a Docker archive, and their digests into FILE.json.

    \b
      harness build baseline combined --toolchain 12.1
      harness images save images.tar --design combined --toolchain 12.1
    """
    from harness import console
    from harness.build import archives
    from harness.build import images as built

    with console.Steps("Saving images") as steps:
        made = archives.save(built.targets(names, versions), file, steps)
    for reference, digest in made.images.items():
        say(f"{reference} {digest}")


@images.command(short_help="Load images from FILE, the very ones that were saved.")
@click.argument("file", type=PathName())
@click.option("--podman", is_flag=True, help="Into Podman instead of Docker.")
def load(file: Path, podman: bool) -> None:
    """Load images from FILE, and make sure by FILE.json that they are the very ones that were saved."""
    from harness import console
    from harness.build import archives

    with console.Steps("Loading images") as steps:
        told = archives.restore(file, into_podman=podman, progress=steps)
    for reference, digest in told.images.items():
        say(f"{reference} {digest}")
