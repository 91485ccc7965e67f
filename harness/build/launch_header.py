"""`launch.h`: the numbers of a design's launches, for its device code, so that only design.toml has them.

There is no such file: compilers are given the text beside the design's own files.
"""

from __future__ import annotations

from harness.build.instances import CUDA_TYPES
from harness.designs import Design, Launch

_DECLARED_IN = {
    "float16": "<cuda_fp16.h>",
    "bfloat16": "<cuda_bf16.h>",
    "int8": '"tables_args.h"',
    "int4": '"tables_args.h"',
}


def text(design: Design) -> str:
    """The header: `[launch]` as the namespace `launch`, in it each `[[special]]` as its kernel's."""
    launches = [design.launch, *(special.launch for special in design.special)]
    named = {row_type for launch in launches for row_type in launch.threads_y_of}
    includes = dict.fromkeys(header for row_type, header in _DECLARED_IN.items() if row_type in named)
    lines = [
        f"// How kernels of {design.name} are launched, as its design.toml says.",
        "#pragma once",
        *(f"#include {header}" for header in includes),
        "namespace launch {",
        *_numbers(design.launch),
    ]
    for special in design.special:
        lines += [
            f"namespace {special.kernel} {{",
            *_numbers(special.launch),
            f"constexpr int kTablesAtOnce = {special.tables_at_once};",
            f"}}  // namespace {special.kernel}",
        ]
    return "\n".join([*lines, "}  // namespace launch", ""])


def _numbers(launch: Launch) -> list[str]:
    x, y = launch.threads
    lines = [f"constexpr int kThreadsX = {x};", f"template <typename row_t> constexpr int kThreadsYOf = {y};"]
    lines += [
        f"template <> constexpr int kThreadsYOf<{CUDA_TYPES[row_type]}> = {of_type};"
        for row_type, of_type in launch.threads_y_of.items()
    ]
    lines.append("template <typename row_t> constexpr int kThreadsOf = kThreadsX * kThreadsYOf<row_t>;")
    if not launch.threads_y_of:  # otherwise they depend on the type of the rows
        lines.append(f"constexpr int kThreadsY = {y}, kThreads = kThreadsX * kThreadsY;")
    return [
        *lines,
        f"constexpr int kBlocks = {launch.blocks}, kBlocksPerSm = {launch.blocks_per_sm};",
        f"constexpr int kBagsPerBlock = {launch.bags_per_block};",
        f"constexpr int kColumnsPerBlock = {launch.columns_per_block};",
    ]
