"""A design's hash follows every file that its kernels are compiled from, however that is included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import designs
from harness.build import kernels
from harness.build.toolchain import Installation
from harness.design_source import COMMON_DIR, without_comments
from harness.errors import BadInputError

INCLUDES = [
    '#include "helper.cuh"',
    '# include "helper.cuh"',
    '#include"helper.cuh"',
    "#include <helper.cuh>",
    '#/**/include "helper.cuh"',
    '/* c */ #include "helper.cuh"',
    '/* c\n*/ #include /* d */ "helper.cuh" // e',
    '#\\\ninclude "helper.cuh"',
    '#inc\\\nlude \\\n "helper.cuh"',
    '%:include "helper.cuh"',
    '\t\v#include "helper.cuh"',
    '\ufeff#include "helper.cuh"',
    '__device__ const char s[] = "/*";\n#include "helper.cuh"\n// */',
    'const char s = \'"\'; // "\n#include "helper.cuh"',
    '__device__ const char s[] = R"x(/* " )x";\n#include "helper.cuh"\n/* */',
    "const int n = 1'000; // it's\n#include \"helper.cuh\"",
    '/* c *\\\n/\n#include "helper.cuh"\n/* d */',
    '// c \\\n /*\n#include "helper.cuh"\n/* d */',
]
KERNEL = """
#include <cuda_fp16.h>
#include "lookup_args.h"
template <typename scalar_t, typename index_t> __global__ void lookup(LOOKUP_PARAMETERS) {
  output[0] = static_cast<scalar_t>(HELP);
}
"""


def design(folder: Path, code: str | bytes, **others: str) -> designs.Design:
    mine = folder / "mine"
    mine.mkdir(exist_ok=True)
    settings = 'title = "t"\nsummary = "s"\n[supports]\ndtypes = ["float32"]\nindex_dtypes = ["int64"]\n'
    (mine / "design.toml").write_text(settings, encoding="utf-8")
    (mine / "kernel.cuh").write_bytes(code if isinstance(code, bytes) else code.encode())
    for name, text in others.items():
        (mine / f"{name}.cuh").write_text(text, encoding="utf-8")
    return designs.get("mine", folder)


@pytest.mark.parametrize("include", INCLUDES)
def test_an_included_file_counts_however_it_is_included(tmp_path: Path, include: str) -> None:
    first = design(tmp_path, include + KERNEL, helper="#define HELP 1\n")
    assert {"kernel.cuh", "helper.cuh", "lookup_args.h"} <= {source.name for source in first.sources}
    then = first.source_hash
    assert design(tmp_path, include + KERNEL, helper="#define HELP 2\n").source_hash != then


@pytest.mark.nvrtc
@pytest.mark.parametrize("include", INCLUDES)
def test_an_edit_of_an_included_file_is_compiled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: Callable[[str], Installation],
    include: str,
) -> None:
    installed("12.1")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    cubins = {
        next(kernels.compile_design(made, "12.1", ["sm_90"]).glob("*.cubin")).read_bytes()
        for value in (1, 2)
        for made in [design(tmp_path, include + KERNEL, helper=f"#define HELP {value}\n")]
    }
    assert len(cubins) == 2


def test_a_file_of_the_design_is_taken_before_that_in_common(tmp_path: Path) -> None:
    made = design(tmp_path, '#include "deep/inner.cuh"\n')
    (tmp_path / "mine" / "deep").mkdir()
    (tmp_path / "mine" / "deep" / "inner.cuh").write_text('#include "assertion.cuh"\n', encoding="utf-8")
    assert COMMON_DIR / "assertion.cuh" in made.sources
    (tmp_path / "mine" / "assertion.cuh").write_text("", encoding="utf-8")
    assert COMMON_DIR / "assertion.cuh" not in made.sources


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('#define H "helper.cuh"\n#include H\n', r"kernel\.cuh:2: this #include does not say which file"),
        ('/*\n*/ int a; // \\\n b\n#include_next "helper.cuh"\n', r"kernel\.cuh:4: this #include does not"),
        ("#in\\\nclude \\\n<a//b.cuh>\n", r"kernel\.cuh:1: this #include does not say which file it means"),
        ('\n# include "nope.cuh"\n', r"kernel\.cuh:2: includes 'nope\.cuh', which is neither"),
        (b"// caf\xe9\n", r"kernel\.cuh: byte 7 is not UTF-8; save it as UTF-8\.$"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, code: str | bytes, said: str) -> None:
    made = design(tmp_path, code, helper="")
    with pytest.raises(BadInputError, match=said):
        _ = made.source_hash


@pytest.mark.parametrize(
    "code",
    [
        '// #include "bar.h"\n',
        '/*\n#include "bar.h"\n#include H\n*/\n',
        '// goes on \\\n#include "bar.h"\n',
        'const char* s = R"(\n#include "bar.h"\n)";\n',
        'const char* s = "\\\n#include H";\n',
        "#include <cuda_fp16.h>\n#include <cstdint>\n",
        'int a; /*\n*/ #include "bar.h"\n',
    ],
)
def test_what_is_no_include_of_ours_is_passed_over(tmp_path: Path, code: str) -> None:
    made = design(tmp_path, code, helper="")
    assert [source.name for source in made.sources] == ["kernel.cuh"]


@pytest.mark.parametrize(
    ("code", "bare"),
    [
        ("a /* b */ c // d\n e", "a c e"),
        ('A(x, "see http://x"); s = 1.0f; // y', 'A(x, "see http://x"); s = 1.0f;'),
        ("A('\"'); b = 1; // \"", "A('\"'); b = 1;"),
        (r'A("\"//"); b = 1; // c', r'A("\"//"); b = 1;'),
        ("n = 1'000; // it's", "n = 1'000;"),
        ('R"x(// ")" )x" a // b', 'R"x(// ")" )x" a'),
        ('"two  blanks"  a', '"two  blanks" a'),
        ("#error don't\n  a // b", "#error don't a"),
        ("a // b \\\n c\nd", "a d"),
        ("a / b /\\\n/ c", "a / b"),
    ],
)
def test_comments_go_and_what_is_in_quotation_marks_stays(code: str, bare: str) -> None:
    assert without_comments(code) == bare
