"""What a design.toml must not say although each of its values is of the right type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.design_source import LAUNCH_HEADER, PEER_FILES, text_of, without_comments
from harness.errors import BadInputError
from harness.records import STOCK
from harness.text import shown

if TYPE_CHECKING:
    from harness.designs import Design, Launch, When

_TUNABLE = r"[a-z][a-z0-9_]{0,39}"
_VALUE_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,19}"
_MOST_KERNELS = 1_000
"""Of one design and architecture: minutes of compiling."""
_READ_WHEN_RUN = ("pinned_rows", "set_aside_mb")
"""Tunables that the bench reads, and no kernel."""
_INCLUDING = ("-I", "--include-path", "-include", "--pre-include")


def check(design: Design, path: Path) -> None:
    """Raises BadInputError, naming the file and the key, for the first thing that is wrong."""
    if not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", design.name):
        raise BadInputError(
            f"{path.parent}: cannot name a design, whose image bears its name; use small letters, digits and "
            "single underscores, dots or dashes between them."
        )
    for launch in (design.launch, *(special.launch for special in design.special)):
        _launch(launch, path)
        if others := sorted(launch.threads_y_of.keys() - set(design.supports.dtypes)):
            raise BadInputError(f"{path}: launch.threads_y_of: {others[0]} is not among supports.dtypes.")
    _tables(design, path)
    if design.compiled and not (path.parent / "kernel.cuh").is_file():
        raise BadInputError(f'{path.parent}: has no kernel.cuh, which a design of kind "design" needs.')
    if design.compiled and (own := path.parent / LAUNCH_HEADER).exists():
        raise BadInputError(f"{own}: {LAUNCH_HEADER} is made of design.toml; give this file another name.")
    if not design.compiled:
        _peer(design, path)
    _supports(design, path)
    _tunables(design, path)
    _doubled(design, path)
    if reading := [option for option in design.compiler_options if option.startswith(_INCLUDING)]:
        raise BadInputError(
            f"{path}: compiler_options: {shown(reading[0])} reads files by which nobody could tell that the "
            "kernel has changed; #include them in kernel.cuh."
        )


def check_kernels(design: Design) -> None:
    """Raises BadInputError where its sources never name a kernel that it has to have; compilers have no words
    for that which name the file."""
    code = "\n".join(without_comments(text_of(source)) for source in design.sources)
    kernels = ["lookup_tables" if design.all_tables else "lookup", *(each.kernel for each in design.special)]
    for name in [*kernels, *(["prepare"] if design.prepares else [])]:
        if not re.search(rf"\b{name}\b", code):
            raise BadInputError(
                f'{design.folder / "kernel.cuh"}: has no kernel {name}; write it as "What a kernel is" in '
                "opt_designs/README.md says."
            )


def _supports(design: Design, path: Path) -> None:
    """A design that takes nothing has no kernels."""
    takes = design.supports
    for name, given in (
        ("dtypes", takes.dtypes),
        ("index_dtypes", takes.index_dtypes),
        ("modes", takes.modes),
    ):
        if not given:
            raise BadInputError(
                f"{path}: supports.{name}: is empty; name what the kernel takes, or remove the line."
            )
    if 0 < takes.max_dim < takes.dim_multiple:
        raise BadInputError(
            f"{path}: supports.max_dim: {takes.max_dim} is less than dim_multiple, {takes.dim_multiple}, so "
            "no table would fit; raise it, or remove the line."
        )


def _tunables(design: Design, path: Path) -> None:
    for name, tunable in design.tunables.items():
        if not re.fullmatch(_TUNABLE, name):
            raise BadInputError(
                f"{path}: tunables.{shown(name)}: cannot name a tunable; use up to 40 small letters, digits "
                "and _, a letter first."
            )
        if design.compiled and not tunable.values and name not in _READ_WHEN_RUN:
            raise BadInputError(
                f"{path}: tunables.{name}.values: are none, so no kernel is compiled for {tunable.default} "
                f"or any other; list them, as in values = [{tunable.default}]. Only "
                f"{' and '.join(_READ_WHEN_RUN)} need none."
            )
        if tunable.values and tunable.default not in tunable.values:
            raise BadInputError(
                f"{path}: tunables.{name}.default: {tunable.default} is not among its values."
            )
        if tunable.names and len(tunable.names) != len(tunable.values):
            raise BadInputError(
                f"{path}: tunables.{name}.names: are {len(tunable.names)} of {len(tunable.values)} values; "
                "give one for each, in their order."
            )
        for one in tunable.names:
            if not re.fullmatch(_VALUE_NAME, one):
                raise BadInputError(
                    f"{path}: tunables.{name}.names: {shown(one)} cannot name a value; use up to 20 letters, "
                    "digits, blanks and - . _, a letter or digit first."
                )
    if design.kernels > _MOST_KERNELS:
        raise BadInputError(
            f"{path}: tunables: with every combination of their values there are {shown(design.kernels)} "
            f"kernels to compile, and a design has {_MOST_KERNELS:,} at most; give fewer values."
        )


def _launch(shape: Launch, path: Path) -> None:
    """What no GPU could launch is refused here, and not by the driver in the midst of a run."""
    x, y = shape.threads
    for each in (y, *shape.threads_y_of.values()):
        if min(x, each) < 1 or x * each > 1024:
            raise BadInputError(f"{path}: launch.threads: {x} × {each} is not between 1 and 1024 threads.")


def _doubled(design: Design, path: Path) -> None:
    """A kernel that is asked for twice would be compiled twice under one name, and a name means one value."""
    supports = design.supports
    named: dict[str, Iterable[object]] = {
        "supports.dtypes": supports.dtypes,
        "supports.index_dtypes": supports.index_dtypes,
        "supports.modes": supports.modes,
        **{f"tunables.{name}.values": tunable.values for name, tunable in design.tunables.items()},
        **{f"tunables.{name}.names": tunable.names for name, tunable in design.tunables.items()},
        **{f"special.{number}.dtypes": each.dtypes for number, each in enumerate(design.special)},
    }
    for key, values in named.items():
        seen: set[object] = set()
        for value in values:
            if value in seen:
                raise BadInputError(f"{path}: {key}: {value} is there twice; remove one.")
            seen.add(value)


def _tables(design: Design, path: Path) -> None:
    """What only one of the two kinds of kernel has."""
    supports = design.supports
    if design.all_tables:
        for name, given in (("fast", design.fast), ("output_only", design.output_only)):
            if given:
                raise BadInputError(f"{path}: {name}: a design for all tables always is; remove the line.")
        if design.prepares:
            raise BadInputError(f"{path}: prepares: a design for all tables pins no rows.")
        _special(design, path)
        return
    if design.special:
        raise BadInputError(f"{path}: special: is for designs with all_tables = true.")
    if not design.compiled:
        return
    if quantised := sorted({"int8", "int4"} & set(supports.dtypes)):
        raise BadInputError(
            f"{path}: supports.dtypes: {quantised[0]} is for designs with all_tables = true; PyTorch's "
            "EmbeddingBag has no such tables."
        )
    if "max" in supports.modes:
        raise BadInputError(f"{path}: supports.modes: max is for designs with all_tables = true.")


def _special(design: Design, path: Path) -> None:
    names: set[str] = set()
    for special in design.special:
        name = special.kernel
        if name == "lookup_tables" or not re.fullmatch(r"lookup_[a-z0-9_]+", name):
            raise BadInputError(
                f"{path}: special.kernel: {shown(name)!r} is no name such as lookup_large, small letters "
                "after lookup_, other than lookup_tables."
            )
        if name in names:
            raise BadInputError(f"{path}: special.kernel: {name!r} is there twice; its names have to differ.")
        names.add(name)
        if not special.when:
            raise BadInputError(f"{path}: special.when: {name}: is for no call; say for which.")
        for when in special.when:
            _when(when, name, path)
        for dtype in special.dtypes:
            if dtype not in design.supports.dtypes:
                raise BadInputError(f"{path}: special.dtypes: {dtype} is not among supports.dtypes.")


def _when(when: When, name: str, path: Path) -> None:
    for field_name, (least, below) in (
        ("rows_per_bag", when.rows_per_bag),
        ("bags_per_sm", when.bags_per_sm),
        ("columns", when.columns),
    ):
        if 0 < below <= least:
            raise BadInputError(f"{path}: special.when.{field_name}: {least} and {below} are not a range.")
    if not any((*when.rows_per_bag, *when.bags_per_sm, *when.columns)) and when.alike is None:
        raise BadInputError(
            f"{path}: special.when: {name}: is for every call; that is what lookup_tables is."
        )


def _peer(design: Design, path: Path) -> None:
    """A peer other than PyTorch itself comes with what measures it, and with what that needs."""
    if design.name == STOCK:
        return
    for name in PEER_FILES:
        if not (path.parent / name).is_file():
            raise BadInputError(f'{path.parent}: has no {name}, which a design of kind "peer" needs.')
    if not design.all_tables:
        raise BadInputError(f"{path}: all_tables: peer.py looks up all tables in one call; set it to true.")
