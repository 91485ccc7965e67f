"""A design told to the operators by named fields: each arrives in its place, and half of one is nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import BadInputError
from harness.patch import build, definition
from harness.patch import manifest as manifests
from harness.patch.manifest import LaunchShape, SpecialKernel
from tests import compiled_once

TESTS = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import sys, threading
from pathlib import Path
import torch
sys.path.insert(0, {str(TESTS.parent)!r})
from harness.patch import definition, manifest
torch.ops.load_library(sys.argv[1])
operators = torch.ops.embedding_harness
folder = Path(sys.argv[2])
read = manifest.read(folder)
"""


@pytest.fixture(scope="module")
def library() -> Path:
    """The part of the patch that designs are told to, and a further operator that says what it knows."""
    source, headers = TESTS / "data" / "told_design" / "told.cpp", Path(torch.__file__).parent / "include"
    ours = [build.SOURCES, build.contract_dir()]
    command = [
        *("c++", "-std=c++20", "-shared", "-fPIC", str(source), str(build.SOURCES / "applied.cpp")),
        *(word for folder in ours for word in ("-I", str(folder))),
        *("-isystem", str(headers), "-isystem", str(headers / "torch" / "csrc" / "api" / "include")),
        *(f"-L{headers.parent / 'lib'}", "-lc10", "-ltorch_cpu", "-ldl"),
    ]
    reads = [source, build.SOURCES / "applied.cpp", *(h for folder in ours for h in folder.rglob("*.h"))]
    return compiled_once.libraries("told_design", {"told.so": command}, reads) / "told.so"


def ran(library: Path, design: Path, code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, str(library), str(design)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_every_named_field_arrives_in_its_place(library: Path, make_tables_design: Any) -> None:
    """Every value differs from its neighbours, and the two designs differ in every flag."""
    first = make_tables_design(
        "first",
        dtypes=["float16", "int4"],
        index_dtypes=["int64"],
        modes=["sum", "max"],
        weighted=True,
        padding=False,
        max_dim=11,
        dim_multiple=12,
        prepares=True,
        output_only=False,
        launch=LaunchShape(21, 22, 23, 24, 25, 26),
        special=[
            SpecialKernel("one", LaunchShape(31, 32, 33, 34, 35, 36), (41, 42), (43, 44), True, 45, (46, 47)),
            SpecialKernel(
                "two", LaunchShape(51, 52, 53, 54, 55, 56), (61, 62), (63, 64), False, 65, (66, 67)
            ),
            SpecialKernel("three", LaunchShape(71, 72, 73, 74, 75, 76), (81, 82), (83, 84)),
        ],
    )
    known = manifests.read(first)
    written = {(e.dtype, e.output_dtype, e.index_dtype, e.generic): e for e in known.entries}
    chosen = [written["int8", "float16", "int64", False], written["int4", "float32", "int32", True]]
    second = dataclasses.replace(
        known,
        modes=["mean"],
        weighted=False,
        padding=True,
        prepares=False,
        output_only=True,
        special=[],
        entries=[dataclasses.replace(chosen[0], function="lookup", threads_y=7), chosen[1]],
        parameters=["offsets", "weights"],
        all_tables=False,
    )
    manifests.write(first, dataclasses.replace(known, entries=chosen))
    (first / "again").mkdir()
    for entry in chosen:
        (first / "again" / entry.cubin).write_bytes((first / entry.cubin).read_bytes())
    manifests.write(first / "again", second)
    told = ran(
        library,
        first,
        """
for place in (folder, folder / "again"):
    print(operators.told(definition.define(operators, manifest.read(place), {}, place)))
""",
    )
    shape = "{} threads, {} blocks, {} bags, {} columns, {} per multiprocessor"
    rest = f"max_dim 11, dim_multiple 12, prepares {{}}, output_only {{}}; {shape.format(21, 23, 24, 25, 26)}"
    again = (first / "again").resolve()
    assert told.split("\n") == [
        "first: Half QUInt4x2; Long; sum true, mean false, max true; weighted true, padding false, "
        + rest.format("true", "false"),
        "one: alike yes, rows 41 42, bags 43 44, columns 46 47, tables 45; "
        + shape.format(31, 33, 34, 35, 36),
        "two: alike no, rows 61 62, bags 63 64, columns 66 67, tables 65; "
        + shape.format(51, 53, 54, 55, 56),
        "three: alike either, rows 81 82, bags 83 84, columns 0 0, tables 0; "
        + shape.format(71, 73, 74, 75, 76),
        f"lookup_tables: Byte to Half, Long, generic false, sm_90, {first.resolve()}/{chosen[0].cubin}, "
        f"{chosen[0].symbol}, {chosen[0].threads_y or 22} threads, order ",
        f"lookup_tables: QUInt4x2 to Float, Int, generic true, sm_90, {first.resolve()}/{chosen[1].cubin}, "
        f"{chosen[1].symbol}, {chosen[1].threads_y or 22} threads, order ",
        "",
        "first: Half QUInt4x2; Long; sum false, mean true, max false; weighted false, padding true, "
        + rest.format("false", "true"),
        f"lookup: Byte to Half, Long, generic false, sm_90, {again}/{chosen[0].cubin}, "
        f"{chosen[0].symbol}, 7 threads, order 2 0",
        f"lookup_tables: QUInt4x2 to Float, Int, generic true, sm_90, {again}/{chosen[1].cubin}, "
        f"{chosen[1].symbol}, {chosen[1].threads_y or 22} threads, order ",
        "",
        "",
    ]


def test_what_is_half_told_is_no_design(library: Path, make_design: Any) -> None:
    said = ran(
        library,
        make_design(),
        """
class Failing:  # whose third kernel is not taken
    def __init__(self):
        self.left = 2
    def __getattr__(self, name):
        if name == "add_kernel":
            self.left -= 1
            if self.left < 0:
                raise InterruptedError
        return getattr(operators, name)

def refused(call, *given, **named):
    try:
        call(*given, **named)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    else:
        print("taken")

identity = definition.define(operators, read, {}, folder)
whole = operators.told(identity)
other = manifest.read(folder)
other.modes.pop()
try:
    definition.define(Failing(), other, {}, folder)
except InterruptedError:
    pass
refused(operators.told, "another")
assert operators.told(identity) == whole
named = {a.name: {**vars(read), **vars(read.launch)}[a.name]
         for a in operators.begin_design.default._schema.arguments}
refused(operators.begin_design, *named.values())
left = named.pop("max_dim")
refused(operators.begin_design, **named)
refused(operators.begin_design, **named, max_dimension=left)
named["max_dim"] = left
second = definition.define(operators, other, {}, folder)
assert second != identity
print(operators.told(second).count("lookup: ") == whole.count("lookup: "), operators.told(second) != whole)
thread = threading.Thread(target=refused, args=(operators.complete_design, "empty"))
operators.begin_design(**named)
thread.start()
thread.join()
refused(operators.told, "empty")
""",
    )
    lines = said.splitlines()
    assert lines[0] == "No design has been defined as 'another'."
    assert "positional argument" in lines[1]
    assert "missing value for argument 'max_dim'" in lines[2]
    assert "max_dim" in lines[3]
    assert lines[4:] == [
        "True True",
        "No design has been begun in this thread: call begin_design first.",
        "No design has been defined as 'empty'.",
    ]


def test_designs_told_by_many_threads_at_once_keep_apart(library: Path, make_design: Any) -> None:
    said = ran(
        library,
        make_design(),
        """
told = []
def define(n):
    mine = manifest.read(folder)
    object.__setattr__(mine, "max_dim", n % 4)
    for _ in range(20):
        identity = definition.define(operators, mine, {}, folder)
        told.append((n % 4, identity, operators.told(identity)))
threads = [threading.Thread(target=define, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(told), len(set(told)), all(f"max_dim {n}," in text for n, _, text in told))
""",
    )
    assert said == "160 4 True\n"


def test_a_library_of_other_sources_is_named(make_design: Any) -> None:
    class Argument:
        name = "colour"

    class Operator:
        class default:  # noqa: N801 - as PyTorch calls it
            class _schema:  # noqa: N801
                arguments = (Argument,)

    with pytest.raises(BadInputError, match="asks for 'colour' of a design"):
        definition._tell(Operator, vars(manifests.read(make_design())))
