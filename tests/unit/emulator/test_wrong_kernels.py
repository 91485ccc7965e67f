"""What beginners' kernels do wrong is told in a sentence, and never ends the process that asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import designs
from harness.emulator import check
from harness.emulator.program import Program
from harness.errors import BadInputError, MachineError

pytestmark = pytest.mark.compiler

LOOKUP = """// One thread: some columns of some bags.
#include <cuda_fp16.h>
#include "assertion.cuh"
#include "lookup_args.h"
template <typename scalar_t, typename index_t>
__global__ void lookup(LOOKUP_PARAMETERS) {
  for (lookup_int64 bag = blockIdx.x; bag < n_bags; bag += gridDim.x) {
    const lookup_int64 begin = bag == 0 ? 0 : offsets[bag];
    const lookup_int64 end = bag + 1 < n_bags ? offsets[bag + 1] : n_indices;
    LOOKUP_ASSERT(begin >= 0 && begin <= end && end <= n_indices, "offsets ascend within the indices");
    for (lookup_int64 column = threadIdx.x; column < dim; column += blockDim.x) {
      float sum = 0;
      lookup_int64 counted = 0;
      for (lookup_int64 position = begin; position < end; position++) {
        const lookup_int64 row = indices[position];
        LOOKUP_ASSERT(row >= 0 && row < rows, "every index is a row of the table");
        const float value = weights[row * row_stride + column * column_stride];
        const float scale = sample_weights ? sample_weights[position * sample_weight_stride] : 1.0f;
        if (row != padding_idx) sum += scale * value, counted++;
        if (offset2bag && column == 0) offset2bag[position] = bag;
      }
      if (mode == LOOKUP_MEAN && counted > 0) sum /= counted;
      if (bag_size) bag_size[bag] = counted;
      output[bag * dim + column] = sum;
    }
  }
}
"""
TABLES = """// One thread: some columns of some bags of one table.
#include <cuda_fp16.h>
#include "assertion.cuh"
#include "tables.cuh"
template <typename weight_t, typename output_t, typename index_t, bool generic>
__global__ void lookup_tables(const __grid_constant__ TablesArgs args) {
  const TableRows table = args.tables[blockIdx.y];
  const lookup_int64 bag = blockIdx.x;
  const index_t* offsets = static_cast<const index_t*>(args.offsets) + table.number * args.n_bags + bag;
  const lookup_int64 begin = offsets[0], end = offsets[1];
  LOOKUP_ASSERT(begin >= 0 && begin <= end && end <= args.n_indices, "offsets ascend within the indices");
  for (lookup_int64 column = threadIdx.x; column < table.dim; column += blockDim.x) {
    float sum = 0;
    for (lookup_int64 position = begin; position < end; position++) {
      const lookup_int64 row = static_cast<const index_t*>(args.indices)[position];
      LOOKUP_ASSERT(row >= 0 && row < table.rows, "every index is a row of its table");
      const float scale = generic && args.sample_weights ? args.sample_weights[position] : 1.0f;
      const char* values = weights_of(args, table) + row * table.row_stride_bytes;
      sum += scale * reinterpret_cast<const weight_t*>(values)[column];
    }
    if (table.mode == LOOKUP_MEAN && end > begin) sum /= end - begin;
    static_cast<output_t*>(args.output)[bag * args.output_stride + table.column + column] = sum;
  }
}
"""
SETTINGS = """title = "t"
summary = "s"
[launch]
threads = [32, 1]
[supports]
dtypes = ["float32"]
index_dtypes = ["int64"]
"""


def design(folder: Path, code: str, settings: str = SETTINGS) -> designs.Design:
    (folder / "mine").mkdir()
    (folder / "mine" / "design.toml").write_text(settings, encoding="utf-8")
    (folder / "mine" / "kernel.cuh").write_text(code, encoding="utf-8")
    return designs.get("mine", folder)


def changed(code: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


def wrong(made: designs.Design, seconds: float = 10) -> dict[str, str]:
    """What is wrong, by check."""
    with Program(made, seconds) as program:
        return {finding.check: finding.wrong for finding in check.examine(program) if finding.wrong}


OUTSIDE = "an index outside the table is refused and never read"
RAGGED = "sums and means of ragged and empty bags"
PADDING = "a padding row is never added"
PAST = "no index is read past the end of a bag, whatever its length"
ASSERT_ROW = '        LOOKUP_ASSERT(row >= 0 && row < rows, "every index is a row of the table");\n'
READ = "        const float value = weights[row * row_stride + column * column_stride];\n"


def test_a_right_kernel_of_each_kind_passes(tmp_path: Path) -> None:
    assert wrong(design(tmp_path, LOOKUP)) == {}
    (tmp_path / "tables").mkdir()
    settings = SETTINGS.replace("[launch]", "all_tables = true\n[launch]")
    assert wrong(design(tmp_path / "tables", TABLES, settings)) == {}


# What is wrong, the change that makes it so, the check that finds it, and what it says.
WRONG: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "no assertion of the row": (
        [(ASSERT_ROW, "")],
        OUTSIDE,
        r"lookup<float, long long>: thread \(0, 0\) of block \(0, 0\) reads outside the table, at row -1 "
        r"where there are 50: assert that it is a row of the table before it is read \(LOOKUP_ASSERT\)",
    ),
    "the row is asserted after it was read": (
        [(ASSERT_ROW + READ, READ + ASSERT_ROW)],
        OUTSIDE,
        "reads outside the table, at row -1 where there are 50: assert",
    ),
    "the assertion lets one row too many through": (
        [("row >= 0 && row < rows", "row >= 0 && row <= rows")],
        OUTSIDE,
        "reads outside the table, at row 50 where there are 50: assert",
    ),
    "a wrong index is passed over in silence": (
        [(ASSERT_ROW, "        if (row < 0 || row >= rows) continue;\n")],
        OUTSIDE,
        "index -1 at position 0 is no row of a table of 50, and no assertion fails",
    ),
    "an index is cut off": (
        [("const lookup_int64 row = indices[position];", "const int row = indices[position];")],
        OUTSIDE,
        "index 4294967296 at position 0 is no row of a table of 50, and no assertion fails",
    ),
    "an index is read ahead past the end": (
        [(ASSERT_ROW, ASSERT_ROW + "        if (indices[position + 1] == -5) continue;\n")],
        PAST,
        "reads outside the indices, at position 2 where there are 2: read none past the end of a bag",
    ),
    "the offset behind the last": (
        [("bag + 1 < n_bags ? offsets[bag + 1] : n_indices", "offsets[bag + 1] + (bag + 1 == n_bags) * 69")],
        RAGGED,
        "reads outside the offsets, at bag 10 where there are 10: there is one per bag",
    ),
    "a write behind the last column": (
        [
            ("column < dim; column += blockDim.x", "column < (dim + 31) / 32 * 32; column += blockDim.x"),
            (READ, READ.replace("column *", "(column % dim) *")),
        ],
        RAGGED,
        "writes outside the output, at bag 10 where there are 10",
    ),
    "an empty bag is left alone": (
        [("for (lookup_int64 column", "if (begin < end) for (lookup_int64 column")],
        RAGGED,
        "bag 0, of 0 rows: column 0 is never written",
    ),
    "a wrong sum": (
        [("sum += scale * value", "sum = scale * value")],
        RAGGED,
        r"bag 2, of 7 rows: column 0 is \S+ instead of \S+",
    ),
    "a mean that counts padding": (
        [("sum /= counted", "sum /= end - begin")],
        PADDING,
        r"bag 0, of 5 rows: column 0 is \S+ instead of \S+",
    ),
    "bag_size counts padding": (
        [("bag_size[bag] = counted", "bag_size[bag] = end - begin")],
        PADDING,
        "bag 0, of 5 rows: bag_size is 5 instead of ",
    ),
    "offset2bag is left out": (
        [("if (offset2bag && column == 0)", "if (offset2bag && column == 0 && bag > 1)")],
        RAGGED,
        "bag 1, of 1 rows: offset2bag.0. is -1 instead of 1",
    ),
    "bag_size may be null": (
        [("if (bag_size) bag_size", "bag_size")],
        "columns apart, and outputs that nobody wants",
        "writes through a null pointer: offset2bag, bag_size, sample_weights may be null",
    ),
    "offsets that descend": (
        [("begin >= 0 && begin <= end && end <= n_indices", "begin >= 0 && end <= n_indices")],
        "offsets that leave the indices are refused",
        "offsets .0, 5, 3. of 11 indices descend or leave them, and no assertion fails",
    ),
    "a write into the table": (
        [(READ, READ + "        *const_cast<scalar_t*>(weights) = 0;\n")],
        RAGGED,
        "writes into the table, which is for reading alone",
    ),
    "sixteen bytes at an odd address": (
        [(READ, READ + "        sum += 0 * reinterpret_cast<const float4*>(weights + row)->x;\n")],
        RAGGED,
        r"kernel\.cuh:18: 'const struct float4' is accessed at an address that is no multiple of 16",
    ),
    "past the end of an array in registers": (
        [
            ("      float sum = 0;\n", "      float sum = 0, held[4];\n"),
            ("if (row != padding_idx)", "held[position - begin] = value;\n        if (row != padding_idx)"),
        ],
        RAGGED,
        r"kernel\.cuh:19: place 4 of an array 'float ?\[4\]'",
    ),
    "a recursion without end": (
        [
            (
                "template <",
                "inline int deep(int n) { volatile int own[99] = {n}; return deep(n) + *own; }\ntemplate <",
            ),
            ("float sum = 0;", "float sum = deep(0) * 0;"),
        ],
        RAGGED,
        "needs more stack than there is",
    ),
    "a division by zero": (
        [("float sum = 0;", "float sum = 7 % (n_bags - 10);")],
        RAGGED,
        "ends by signal 8, Floating point exception",
    ),
    "a barrier that some pass by": (
        [("float sum = 0;", "float sum = 0;\n      if (threadIdx.x < 7) __syncthreads();")],
        RAGGED,
        "some threads wait for ever: not all of them come to the same barrier or exchange",
    ),
    "a barrier that some come to later": (
        [("float sum = 0;", "float sum = 0;\n      if (threadIdx.x >= 7) __syncthreads();")],
        RAGGED,
        "some threads wait for ever: not all of them come to the same barrier or exchange",
    ),
    "an exchange that some pass by": (
        [("float sum = 0;", "float sum = 0;\n      if (threadIdx.x < 7) __syncwarp();")],
        RAGGED,
        "some threads wait for ever: not all of them come to the same barrier or exchange",
    ),
    "a barrier here, an exchange there": (
        [
            (
                "float sum = 0;",
                "float sum = 0;\n      if (threadIdx.x < 7) __syncwarp(); else __syncthreads();",
            )
        ],
        RAGGED,
        "some threads wait for ever: not all of them come to the same barrier or exchange",
    ),
    "a wild address": (
        [("float sum = 0;", "float sum = weights[1LL << 44];")],
        RAGGED,
        "reads outside|touches an address that cannot be",
    ),
    "the process is ended": (
        [
            ("#include <cuda_fp16.h>", "#include <cstdlib>"),
            ("float sum = 0;", "float sum = 0;\n      abort();"),
        ],
        RAGGED,
        "ends by signal 6, Aborted",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_sentence_names_what_is_wrong(tmp_path: Path, what: str) -> None:
    changes, failed, said = WRONG[what]
    found = wrong(design(tmp_path, changed(LOOKUP, *changes)))
    assert re.search(said, found.get(failed, "")), found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            ("position < end; position++", "position < end; position += indices[0] * 0"), id="a loop"
        ),
        pytest.param(
            ("float sum = 0;", "static volatile int seen;\n while (seen == 0) {}\n float sum = 0;"),
            id="a wait",
        ),
    ],
)
def test_what_never_ends_is_stopped(tmp_path: Path, change: tuple[str, str]) -> None:
    with Program(design(tmp_path, changed(LOOKUP, change)), seconds=0.2) as program:
        found = next(iter(check.examine(program))).wrong
    assert "of block (" in found
    assert "has not ended after 0.2 s of the processor's time: a loop has no end" in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ('      LOOKUP_ASSERT(row >= 0 && row < table.rows, "every index is a row of its table");\n', ""),
            r"reads outside table 0, at row -1 where there are 300: assert that it is a row of its table",
        ),
        (
            ("offsets[1];", "offsets[blockIdx.y + 2];"),
            r"reads outside the offsets, at place \d+ where there are",
        ),
        (("args.output_stride", "args.dim * 3"), r"never written|writes outside the output, at bag"),
    ],
)
def test_kernels_for_all_tables_too(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    settings = SETTINGS.replace("[launch]", "all_tables = true\n[launch]")
    found = wrong(design(tmp_path, changed(TABLES, change), settings))
    assert any(re.search(said, sentence) for sentence in found.values()), found


def test_a_program_goes_on_after_a_kernel_that_was_stopped(tmp_path: Path) -> None:
    with Program(design(tmp_path, changed(LOOKUP, (ASSERT_ROW, "")))) as program:
        findings = {finding.check: finding.wrong for finding in check.examine(program)}
    assert [title for title, said in findings.items() if said] == [OUTSIDE]


def test_what_a_kernel_prints_comes_to_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bag_by_bag = 'float sum = 0;\n      if (column == 3) printf("bag %d\\n", int(bag));'
    printing = changed(LOOKUP, ("float sum = 0;", bag_by_bag))
    assert wrong(design(tmp_path, printing)) == {}
    assert "bag 0\nbag 1\n" in capfd.readouterr().err


def test_a_word_that_the_stand_in_lacks_is_named(tmp_path: Path) -> None:
    made = design(tmp_path, changed(LOOKUP, ("float sum = 0;", "float sum = __tex_fetch(3);")))
    with pytest.raises(
        BadInputError,
        match=r"mine: the C\+\+ compiler, which knows CUDA by a stand-in, refuses it: .*__tex_fetch",
    ) as raised:
        Program(made)
    assert "\n" not in str(raised.value)


def test_an_instruction_of_a_gpu_is_named_with_its_line(tmp_path: Path) -> None:
    made = design(
        tmp_path,
        changed(LOOKUP, ("float sum = 0;", 'float sum;\n      asm("mov.f32 %0, 0f00000000;" : "=f"(sum));')),
    )
    with pytest.raises(MachineError, match=r"mine/kernel\.cuh:13: asm is an instruction of a GPU"):
        Program(made)


def test_without_a_compiler_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(MachineError, match="there is no 'no-such-compiler': install one"):
        Program(design(tmp_path, LOOKUP))
