"""The command that makes a model of traffic."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from harness.cli.shared import PARTS, PathName, argument, parts, say
from harness.errors import unwritable
from harness.text import shown


class _OfFeature(click.ParamType[tuple[str, int]]):
    """N for all features, or NAME=N for one."""

    name = "number"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        feature, _, number = value.rpartition("=")
        digits = number.lstrip("0")
        whole = number.isascii() and number.isdecimal() and 0 < len(digits) <= len(str(self._most))
        if not whole or int(digits) > self._most:
            self.fail(f"{shown(value)!r} is neither N nor NAME=N, with N from 1 to {self._most}.", param, ctx)
        return feature, int(digits)


def _by_feature(
    ctx: click.Context, param: click.Parameter, given: Sequence[tuple[str, int]]
) -> dict[str, int]:
    """What was given for each feature; for all others by the name ""."""
    numbers: dict[str, int] = {}
    for feature, number in given:
        if feature in numbers:
            whose = f"{shown(feature)} has" if feature else "all features have"
            raise click.BadParameter(f"{whose} {numbers[feature]} and {number}; give one.", ctx, param)
        numbers[feature] = number
    return numbers


@click.command("model", short_help="Make a model's file of the traffic of all its tables.")
@click.argument("source", type=PathName())
@click.argument("out", type=PathName())
@click.option(
    "--dim",
    "dims",
    multiple=True,
    required=True,
    type=_OfFeature(2**16),
    callback=_by_feature,
    metavar="N|NAME=N",
    help="Columns of the tables, or of one feature's; repeatable.",
)
@click.option(
    "--rows",
    multiple=True,
    type=_OfFeature(2**40),
    callback=_by_feature,
    metavar="N|NAME=N",
    help="Rows of the tables, or of one feature's; repeatable. Default: what a trace says, or as many as the "
    "largest row number needs.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 2**20),
    metavar="N",
    help="Samples in a batch. Default: as many as SOURCE holds, at most 2048.",
)
@click.option(
    "--pooling",
    type=click.IntRange(min=1),
    metavar="N",
    help="Lay bags of so many rows over traces that have none of their own.",
)
@click.option("--mode", type=click.Choice(["sum", "mean"]), default="sum", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "int8", "int4"]),
    default="float32",
    show_default=True,
    help="Of the tables.",
)
@click.option(
    "--traces",
    type=PathName(),
    metavar="DIR",
    help="Also write each feature's row numbers and bags, in order, as a trace in this folder.",
)
@click.option(
    "--replay",
    is_flag=True,
    help="Have the model's tables replay these traces, bag by bag, in place of rows and bags that are as "
    "likely. Needs --traces.",
)
@click.option("--skip-empty", is_flag=True, help="Leave out features that look nothing up.")
def model(
    source: Path,
    out: Path,
    dims: Mapping[str, int],
    rows: Mapping[str, int],
    batch: int | None,
    pooling: int | None,
    mode: str,
    dtype: str,
    traces: Path | None,
    replay: bool,
    skip_empty: bool,
) -> None:
    """Make a model's file of the traffic of all its tables.

    SOURCE is a KeyedJaggedTensor of TorchRec that torch.save has written, or a dict of its keys, values and
    lengths (.pt); a file of Meta's dlrm_datasets (.pt.gz), of all its tables; or a folder with a trace for
    each table, called as its feature. Nothing in a file is executed. OUT is the .toml to make.

    Kept of each feature: its rows, how long its bags are and how many are empty, and how popular rows are:
    the shares of the hottest, and a law for the others by which a batch looks up about as many distinct ones.
    Not kept: which rows these are, and how soon one comes back; of that, --traces writes for each feature a
    trace for `harness trace stats` and `harness run --dataset`. With --replay the model keeps it all: batches
    are stretches of these traces, each feature with its own rows and bags. Keep OUT and the traces together.

    \b
      harness trace model batch.pt mine.toml --dim 64 --dim user=128
      harness trace model fbgemm_t856_bs65536_0.pt.gz meta.toml --dim 128 \\
          --skip-empty
      harness trace model traces/ mine.toml --dim 64 --pooling 20
      harness trace model batch.pt mine.toml --dim 64 --traces mine \\
          --replay
      harness run --model mine.toml --design fused
    """
    from harness import console
    from harness.imports import model_file
    from harness.imports import source as sources
    from harness.traces import streams

    if replay and traces is None:
        raise click.UsageError("--replay needs --traces DIR: what the model's tables replay lies there.")
    said = mode, dtype, skip_empty, traces, replay
    wanted = model_file.Wanted(dims, rows, batch, *said)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out.parent, error) from error
    with (
        tempfile.TemporaryDirectory(prefix=".import-", dir=out.parent) as scratch,
        console.Steps("Importing") as steps,
    ):
        steps.expect(2 * PARTS)
        steps.now(streams.called(source))
        traffic = sources.read(source, Path(scratch), pooling, parts(steps))
        steps.now("measuring bags and popularity")
        made = model_file.write(traffic, wanted, out, parts(steps))
    work = made.model.example()
    say(
        f"{out}: {work.tables:,} features, {work.all_lookups / work.batch:,.1f} rows a sample, "
        f"{work.table_bytes / 1e9:,.2f} GB."
    )
    if made.left_out:
        say(f"Left out, since they look nothing up: {len(made.left_out):,} features.")
    if made.unbagged:
        say(f"Left out behind the last whole bag of {pooling}: {_of_features(made.unbagged)}.")
    kept = "the same in the model" if replay else f"about {made.distinct_expected:,.0f} in the model"
    say(f"A batch of {work.batch:,} looks up {made.distinct_seen:,.0f} distinct rows in SOURCE, and {kept}.")
    if traces is not None:
        say(f"Traces of {len(made.rows):,} features:  harness trace stats {argument(traces)}/NAME")
    say(f"Look at it:  harness models {argument(out)}")
    say(f"Measure it:  harness run --model {argument(out)} --design fused")


def _of_features(row_numbers: Mapping[str, int]) -> str:
    """So many row numbers of each feature; of many features the first ones are named."""
    from harness.imports.model_file import NAMED

    (name, first), *others = list(row_numbers.items())[:NAMED]
    told = [f"{first:,} row number{'s' if first > 1 else ''} of {shown(name)}"]
    told += [f"{count:,} of {shown(name)}" for name, count in others]
    more = list(row_numbers.values())[NAMED:]
    return ", ".join(told) + (f" and {sum(more):,} of {len(more):,} other features" if more else "")
