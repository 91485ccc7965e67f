"""What the folders under opt_designs/ say, and how a wrong one is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import designs
from harness.build import instances, kernels
from harness.design_source import DESIGNS_DIR
from harness.emulator.program import Program
from harness.errors import BadInputError

TOO_MANY = "".join(f"[tunables.t{n}]\ndefault = 0\nvalues = {list(range(10))}\n" for n in range(9))
SPECIAL = """
[[special]]
kernel = "lookup_big"
when = [{ rows_per_bag = [8, 0] }]
launch = { threads = [32, 8] }
"""


def write(folder: Path, toml: str, kernel: str | None = "") -> None:
    folder.mkdir()
    (folder / "design.toml").write_text(f'title = "t"\nsummary = "s"\n{toml}', encoding="utf-8")
    if kernel is not None:
        (folder / "kernel.cuh").write_text(kernel, encoding="utf-8")


def test_the_papers_designs_are_there_and_baseline_is_first() -> None:
    known = designs.discover()
    assert next(iter(known)) == "baseline"
    assert {"baseline", "optmt", "rpf_optmt", "l2p_optmt", "combined", "stock"} <= set(known)


def test_optmt_is_the_baseline_with_a_cap_and_nothing_else() -> None:
    baseline, optmt = designs.get("baseline"), designs.get("optmt")
    shared = {s for s in baseline.sources if s.parent.name == "common"}
    assert shared == {s for s in optmt.sources if s.parent.name == "common"}
    for design in (baseline, optmt):
        lines = (design.folder / "kernel.cuh").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line and not line.startswith("//")] == ['#include "row_by_row.cuh"']
    prose: dict[str, Any] = {"name": "", "title": "", "summary": "", "paper": "", "folder": Path()}
    assert dataclasses.replace(optmt, **prose) == dataclasses.replace(baseline, max_registers=42, **prose)


@pytest.mark.parametrize("name", [d.name for d in designs.discover().values() if d.compiled])
def test_every_kernel_begins_by_saying_who_does_what(name: str) -> None:
    source = (designs.get(name).folder / "kernel.cuh").read_text(encoding="utf-8")
    comment = source.partition("\n#include")[0]
    assert all(line.startswith("//") for line in comment.strip().splitlines())
    for word in ("thread", "warp", "block", "grid", "n flight"):
        assert word in comment


def test_source_hash_follows_code_options_and_shared_files_but_not_prose(tmp_path: Path) -> None:
    shutil.copytree(DESIGNS_DIR / "rpf_optmt", tmp_path / "mine")
    toml, kernel = tmp_path / "mine" / "design.toml", tmp_path / "mine" / "kernel.cuh"

    def now() -> str:
        return designs.get("mine", tmp_path).source_hash

    first = now()
    kernel.write_text("// Said differently.\n" + kernel.read_text(encoding="utf-8"))
    toml.write_text(toml.read_text(encoding="utf-8").replace("Register prefetch", "Prefetch into registers"))
    assert now() == first
    toml.write_text(toml.read_text(encoding="utf-8").replace("max_registers = 42", "max_registers = 40"))
    second = now()
    assert second != first
    (tmp_path / "mine" / "prefetched_rows.cuh").write_text(
        "// taken before the shared one\nint changed;\n", encoding="utf-8"
    )
    assert now() not in (first, second)


def test_keys_that_came_later_change_the_hash_only_where_they_are_set(tmp_path: Path) -> None:
    shutil.copytree(DESIGNS_DIR / "optmt", tmp_path / "mine")
    toml = tmp_path / "mine" / "design.toml"
    text, hashes = toml.read_text(encoding="utf-8"), set()
    for line in ("", "fast = true\n", "output_only = true\n", "output_only = false\n", "special = []\n"):
        toml.write_text(line + text, encoding="utf-8")
        hashes.add(designs.get("mine", tmp_path).source_hash)
    assert len(hashes) == 3


def test_sources_are_found_through_includes() -> None:
    names = {source.name for source in designs.get("combined").sources}
    assert {"kernel.cuh", "pin_rows.cuh", "prefetched_rows.cuh", "bag_columns.cuh", "lookup_args.h"} <= names


@pytest.mark.parametrize(
    ("toml", "kernel", "sentence"),
    [
        ("threads = 3\n", "", r"design\.toml: threads: is not a known key"),
        ('name = "x"\n', "", r"name: follows from the folder"),
        ('kind = "kernel"\n', "", r"kind: .*given: 'kernel'"),
        ("max_registers = 'many'\n", "", r"max_registers: .*given: 'many'"),
        ("[tunables.d]\ndefault = 3\nvalues = [1, 2]\n", "", r"tunables\.d\.default: 3 is not among"),
        ("max_registers = -3\n", "", r"max_registers: -3 is less than 0"),
        ("[launch]\nthreads = [32, 64]\n", "", r"launch\.threads: 32 × 64 is not between 1 and 1024 threads"),
        ("[launch]\nthreads = [0, 64]\n", "", r"launch\.threads: 0 × 64 is not"),
        ("[launch]\nblocks = -1\n", "", r"launch\.blocks: -1 is less than 0"),
        ("", None, r"has no kernel\.cuh"),
        ('[supports]\ndtypes = ["float8"]\n', "", r"supports\.dtypes.*float8"),
        ('[supports]\ndtypes = ["int4"]\n', "", r"supports\.dtypes: int4 is for designs with all_tables"),
        ('[supports]\nmodes = ["max"]\n', "", r"supports\.modes: max is for designs with all_tables"),
        ("all_tables = true\nfast = true\n", "", r"fast: a design for all tables always is"),
        ("all_tables = true\nprepares = true\n", "", r"prepares: a design for all tables pins no rows"),
        ("[launch]\nthreads_y_of = { int8 = 2 }\n", "", r"launch\.threads_y_of: int8 is not among supports"),
        ("[launch]\nbags_per_block = 0\n", "", r"launch\.bags_per_block: 0 is less than 1"),
        ("[supports]\ndim_multiple = 0\n", "", r"supports\.dim_multiple: 0 is less than 1"),
        ("[supports]\nmax_dim = -1\n", "", r"supports\.max_dim: -1 is less than 0"),
        ("[supports]\ndtypes = []\n", "", r"supports\.dtypes: is empty; name what the kernel takes"),
        ("[supports]\nindex_dtypes = []\n", "", r"supports\.index_dtypes: is empty"),
        ("[supports]\nmodes = []\n", "", r"supports\.modes: is empty"),
        (
            "[supports]\nmax_dim = 3\ndim_multiple = 4\n",
            "",
            r"supports\.max_dim: 3 is less than dim_multiple, 4, so no table would fit",
        ),
        (
            "[tunables.distance]\ndefault = 2\nvalues = []\n",
            "",
            r"tunables\.distance\.values: are none, so no kernel is compiled for 2 .* as in values = \[2\]",
        ),
        ('compiler_options = ["-I/x"]\n', "", r"compiler_options: -I/x reads files by which nobody"),
        (SPECIAL, "", r"special: is for designs with all_tables"),
        (
            "all_tables = true\n" + SPECIAL.replace("lookup_big", "big"),
            "",
            r"special\.kernel: 'big' is no name",
        ),
        (
            "all_tables = true\n" + SPECIAL.replace("lookup_big", "lookup_tables"),
            "",
            r"special\.kernel: 'lookup_tables' is no name",
        ),
        (
            "all_tables = true\n" + SPECIAL.replace("[8, 0]", "[0, 0]"),
            "",
            r"special\.when: lookup_big: is for every call",
        ),
        (
            "all_tables = true\n" + SPECIAL.replace("[8, 0]", "[8, 4]"),
            "",
            r"special\.when\.rows_per_bag: 8 and 4 are not a range",
        ),
        (
            "all_tables = true\n" + SPECIAL + SPECIAL,
            "",
            r"special\.kernel: 'lookup_big' is there twice",
        ),
        ("[launch]\nblocks = 1" + "0" * 30 + "\n", "", r"launch\.blocks: 10{30} is more than 2147483647"),
        ("[launch]\nblocks = true\n", "", r"launch\.blocks: should be a whole number \(given: True\)"),
        ('[launch]\nblocks = "4"\n', "", r"launch\.blocks: should be a whole number \(given: '4'\)"),
        ("[launch]\nblocks = 4.0\n", "", r"launch\.blocks: should be a whole number"),
        ("[launch]\nblocks = 2001-01-01\n", "", r"launch\.blocks: 2001-01-01 is a date or time"),
        ("fast = 1\n", "", r"fast: should be true or false \(given: 1\)"),
        ("[tunables.d]\ndefault = -5\n", "", r"tunables\.d\.default: -5 is less than 0"),
        ("[tunables.d]\ndefault = true\n", "", r"tunables\.d\.default: should be a whole number"),
        ("[tunables.d]\ndefault = 1\nvalues = [1, -2]\n", "", r"tunables\.d\.values\.1: -2 is less than 0"),
        ("[tunables.d]\ndefault = 1\nvalues = [1, 2, 1]\n", "", r"tunables\.d\.values: 1 is there twice"),
        (
            '[tunables.d]\ndefault = 1\nvalues = [1, 2]\nnames = ["a"]\n',
            "",
            r"tunables\.d\.names: are 1 of 2 values; give one for each",
        ),
        (
            '[tunables.d]\ndefault = 1\nvalues = [1, 2]\nnames = ["a", "a"]\n',
            "",
            r"tunables\.d\.names: a is there twice",
        ),
        (
            '[tunables.d]\ndefault = 1\nvalues = [1, 2]\nnames = ["a", "<b>"]\n',
            "",
            r"tunables\.d\.names: <b> cannot name a value",
        ),
        ('[tunables."a b; }"]\ndefault = 1\n', "", r"tunables\.a b; }: cannot name a tunable"),
        ('[tunables."a\\u001b"]\ndefault = 1\n', "", r"tunables: a key holds U\+001B"),
        ('[supports]\ndtypes = ["float32", "float32"]\n', "", r"supports\.dtypes: float32 is there twice"),
        ('[supports]\nmodes = ["sum", "sum"]\n', "", r"supports\.modes: sum is there twice"),
        (TOO_MANY, "", r"tunables: with every combination of their values there are 4000000000 kernels"),
        ('paper = "\\u202e"\n', "", r"paper: holds U\+202E, which cannot be shown; remove it"),
        ("max_registers = 0x" + "f" * 5000, "", r"max_registers: a number of 20000 bits is out of"),
        ("max_registers = " + "9" * 5000, "", r"is not TOML: a number has too many digits"),
        ("a" + ".a" * 30_000 + " = 1\n", "", r"is not TOML: a key has too many parts"),
        ("x = " + "[" * 5_000 + "]" * 5_000, "", r"is not TOML: it is nested too deeply"),
        ("x = " + "[" * 50 + "]" * 50, "", r"x\.0\.0…: is nested too deeply"),
        ('paper = "' + "x" * 2**20 + '"\n', "", r"design\.toml: holds more than the 1 MiB that it may"),
        (
            "all_tables = true\n" + SPECIAL.replace("kernel =", "dtypes = ['int8']\nkernel ="),
            "",
            r"special\.dtypes: int8 is not among supports\.dtypes",
        ),
    ],
)
def test_a_wrong_design_is_one_sentence(tmp_path: Path, toml: str, kernel: str | None, sentence: str) -> None:
    write(tmp_path / "wrong", toml, kernel)
    with pytest.raises(BadInputError, match=sentence):
        designs.discover(tmp_path)


@pytest.mark.parametrize("name", ["my design", "Mine", "-x", "a__b", "größe"])
def test_a_name_that_no_image_could_bear_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, "", "")
    with pytest.raises(BadInputError, match=f"{name}: cannot name a design"):
        designs.discover(tmp_path)


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    write(tmp_path / "wrong", "", '#include "nowhere.cuh"\n')
    with pytest.raises(BadInputError, match=r"includes 'nowhere\.cuh'"):
        _ = designs.get("wrong", tmp_path).source_hash


def test_a_design_that_cannot_be_read_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "good", "")
    write(tmp_path / "half", "", '#include "nope.cuh"\n')
    write(tmp_path / "latin", "")
    (tmp_path / "latin" / "kernel.cuh").write_bytes(b"// caf\xe9\n")
    write(tmp_path / "unfinished", "[supports\n")
    found, broken = designs.readable(tmp_path)
    assert list(found) == ["good"]
    assert "includes 'nope.cuh'" in broken["half"]
    assert "kernel.cuh: byte 7 is not UTF-8" in broken["latin"]
    assert "design.toml: is not TOML" in broken["unfinished"]
    assert designs.get("good", tmp_path) == found["good"]
    monkeypatch.setattr(designs, "readable", lambda: (found, broken))
    assert designs.source_hashes.__wrapped__() == {"good": found["good"].source_hash}


@pytest.mark.parametrize(
    ("toml", "kernel", "missing"),
    [
        ("", "", "lookup"),
        ("prepares = true\n", "void lookup();\n", "prepare"),
        ("all_tables = true\n", "void lookup();\n", "lookup_tables"),
        ("all_tables = true\n" + SPECIAL, "void lookup_tables(); // lookup_big\n", "lookup_big"),
    ],
)
def test_a_kernel_that_is_nowhere_is_named(tmp_path: Path, toml: str, kernel: str, missing: str) -> None:
    write(tmp_path / "mine", toml, kernel)
    made = designs.get("mine", tmp_path)
    for use in (lambda: kernels.compile_design(made, "12.1"), lambda: Program(made)):
        with pytest.raises(BadInputError, match=rf"kernel\.cuh: has no kernel {missing}; write it as"):
            use()


def test_unknown_design_names_the_known() -> None:
    with pytest.raises(BadInputError, match=r"no design 'optnt'; known: baseline, .*optmt"):
        designs.get("optnt")


def test_threads_may_follow_the_type_of_the_rows(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "kernel.cuh").write_text("")
    text = 'title = "t"\nsummary = "s"\n[launch.threads_y_of]\nfloat16 = {}\n'
    (folder / "design.toml").write_text(text.format(64))
    with pytest.raises(BadInputError, match="32 × 64 is not between"):
        designs.get("mine", tmp_path)
    (folder / "design.toml").write_text(text.format(2))
    assert designs.get("mine", tmp_path).launch.threads_y_of == {"float16": 2}


def test_special_kernels_count_in_the_hash(tmp_path: Path) -> None:
    write(tmp_path / "mine", "all_tables = true\n" + SPECIAL)
    toml, hashes = tmp_path / "mine" / "design.toml", set()
    text = toml.read_text(encoding="utf-8")
    for line in ("", "blocks_per_sm = 0, ", "blocks_per_sm = 1, "):
        toml.write_text(text.replace("threads = [32, 8]", f"{line}threads = [32, 8]"), encoding="utf-8")
        hashes.add(designs.get("mine", tmp_path).source_hash)
    for when in (
        "[{ alike = true }]",
        "[{ alike = false }]",
        "[{ alike = true }, { rows_per_bag = [8, 0] }]",
    ):
        toml.write_text(text.replace("[{ rows_per_bag = [8, 0] }]", when), encoding="utf-8")
        hashes.add(designs.get("mine", tmp_path).source_hash)
    toml.write_text(text.replace("[[special]]\n", "[[special]]\ntables_at_once = 9\n"), encoding="utf-8")
    hashes.add(designs.get("mine", tmp_path).source_hash)
    assert len(hashes) == 6


def test_how_many_kernels_there_are_is_known_without_making_them() -> None:
    for design in designs.discover().values():
        if design.compiled:
            assert design.kernels == len(instances.of(design))


@pytest.mark.parametrize("what", ["/dev/zero", "/dev/null", "/"])
def test_a_design_toml_that_is_no_file_is_said(what: str, tmp_path: Path) -> None:
    write(tmp_path / "mine", "")
    (tmp_path / "mine" / "design.toml").unlink()
    (tmp_path / "mine" / "design.toml").symlink_to(what)
    with pytest.raises(BadInputError, match=r"design\.toml: is a (device|folder) and not a file"):
        designs.discover(tmp_path)
