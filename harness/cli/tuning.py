"""The command that finds which lookup serves a model's tables fastest on this GPU."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from harness.cli.shared import DatasetName, PathName, print_json, put, say
from harness.errors import BadInputError, MachineError


@click.command(short_help="Find which lookup serves a MODEL fastest here; write plan.json.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--traffic",
    type=DatasetName(),
    metavar="NAME|TRACE",
    help="What is looked up: one_item, high, medium, low, random, skewed, mixed, own, a file of row numbers, "
    "or what `harness trace import` made. Default: the model's own, or random.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Samples in a batch. Default: the model's.")
@click.option(
    "--max-rows", type=click.IntRange(min=1), help="Cut larger tables down to so many rows, to fit the GPU."
)
@click.option(
    "--row-type",
    "row_types",
    multiple=True,
    type=click.Choice(["float32", "float16", "bfloat16", "int8", "int4"]),
    help="Rows may be converted to this, which changes numbers; repeatable.",
)
@click.option("--graph", is_flag=True, help="Decide by CUDA graphs instead of eager calls.")
@click.option("--blocks", type=click.IntRange(11, 1000), default=20, show_default=True, help="Of passes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of rows and order.")
@click.option("--gpu", default="0", show_default=True, help="GPU by index or UUID.")
@click.option("--wait", is_flag=True, help="Wait while another run uses the GPU.")
@click.option(
    "--output",
    type=PathName(dir_okay=False),
    default=Path("plan.json"),
    show_default=True,
    help="Where the plan is written.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, too.")
def tune(
    model: str,
    traffic: str | None,
    batch: int | None,
    max_rows: int | None,
    row_types: tuple[str, ...],
    graph: bool,
    blocks: int,
    seed: int,
    gpu: str,
    wait: bool,
    output: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find which lookup serves a MODEL's tables fastest on this GPU, for embedding_kernels.optimize(plan=).

    A MODEL is a name or a file; see `harness models`. Needs the package embedding-kernels (`make wheel`).

    \b
      harness tune dlrm_dcnv2 --max-rows 3000000 --output plan.json
      harness tune my_model.toml --traffic traces/clicks --batch 512
      harness tune my_model.toml --row-type float16   numbers may change so far
      harness tune my_model.toml --dry-run            on any machine

    Tried are the kernels of embedding-kernels, fused with other limits too where they matter (few_rows,
    many_bags, crowded_clocks), and PyTorch's own lookup, a call per table. Each is compared with sums in
    float64 first, and timed eager, the host's part included, and as a CUDA graph.
    """
    from harness import tuning

    what = tuning.asked(
        model, traffic=traffic, batch=batch, max_rows=max_rows or 0, row_types=row_types, seed=seed
    )
    if dry_run:
        return _show(what, as_json)
    found = _measured(
        what, decide_by="graph" if graph else "eager", blocks=blocks, gpu=gpu, wait=wait, root=output
    )
    put(found.to_json(), output)
    if as_json:
        return print_json(dataclasses.asdict(found))
    say(str(found))
    if found.protocol.bytes_between_turns < 3 * found.protocol.l2_bytes:
        say(
            "Even the most batches touch too little to empty the GPU's L2 cache between two turns of one: "
            "some rows were found there that a server's passes might not find."
        )
    say(f'Plan: {output}; serve by it with embedding_kernels.optimize(model, plan="{output}")')


def _measured(what: Any, *, decide_by: str, blocks: int, gpu: str, wait: bool, root: Path) -> Any:
    from harness import console, tuning
    from harness.run import gpu as gpus
    from harness.run import lease

    if gpus.several(gpu):
        raise BadInputError(f"--gpu {gpu}: a plan is of one GPU; name one.")
    try:
        (board,) = gpus.find(gpu)
    except MachineError as error:
        raise MachineError(
            "harness tune measures on an NVIDIA GPU, and this machine has none with a working driver; "
            "--dry-run says what it would measure."
        ) from error
    os.environ["CUDA_VISIBLE_DEVICES"] = board.uuid  # before PyTorch looks round
    with console.Steps("Tuning") as steps, lease.gpu(board.uuid, root.absolute(), wait=wait, progress=steps):
        steps.now(f"{what.model.name}: making tables, checking, timing")
        return tuning.tune(what, decide_by=decide_by, blocks=blocks)


def _show(what: Any, as_json: bool) -> None:
    if as_json:
        return print_json(what.as_plain())
    from harness import console
    from harness.report import names, units

    rows = f", or rows converted to {', '.join(what.row_types)}" if what.row_types else ""
    for heading, text in (
        ("what", f"{what.model.title}, its tables alone"),
        ("work", names.work(what.work)),
        ("traffic", what.traffic),
        ("choices", f"fused, also with other limits; vectorized{rows}; PyTorch's own lookup"),
        ("GPU memory", f"at least {units.bytes_(what.needed_bytes)}"),
    ):
        console.item(heading, text)
    say("Nothing was measured (--dry-run).")
