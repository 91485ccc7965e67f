"""Commands about traces: look at one, make one, bring one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from harness.cli import importing
from harness.cli.shared import (
    PARTS,
    SYNTHETIC,
    PathName,
    analysed,
    argument,
    parts,
    print_json,
    say,
    shipped_runs,
)
from harness.errors import BadInputError
from harness.text import meant, readable

if TYPE_CHECKING:
    from harness.analysis.report import Run
    from harness.console import Steps
    from harness.traces.columns import Mapping
    from harness.traces.formats import Format
    from harness.traces.sources import Source
    from harness.traces.stats import TraceStatistics

FORMATS = ("text", "csv", "tsv", "parquet", "npy", "pt")
"""Those of harness.traces.formats, which takes too long to import."""
_ROWS, _POOLING = 500_000, 150
_WORTH_SERVING = ("kernels", "peers")
"""The experiment with the kernels that somebody might serve."""


class TraceName(click.ParamType[str]):
    """A file, a folder, or the name of a synthetic trace; the shell completes all of them."""

    name = "trace"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in SYNTHETIC if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *names]


@click.group(short_help="Look at traces, make them, import your own.")
def trace() -> None:
    """Look at traces, make them, import your own.

    A trace is the row numbers that are looked up in a table, in order. How soon rows come back decides
    what a GPU's caches can do for a lookup.

    \b
    A first walk:
      harness trace stats medium low     two of the paper's datasets side by side
      harness trace import clicks.csv traces/clicks --column item --rows 500000
      harness trace stats traces/clicks medium --chart clicks.html
      harness run kernels --dataset traces/clicks --set workload.rows=500000
    """


@trace.command()
@click.argument("names", nargs=-1, required=True, type=TraceName(), metavar="TRACE...")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rows of the table. Default: what an imported trace says; 500000 for synthetic ones.",
)
@click.option(
    "--pooling",
    type=click.IntRange(min=1),
    metavar="N",
    help="Lay bags of so many accesses over it. Default: the trace's own bags, or 150.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=1,
    show_default=True,
    help="Of synthetic traces.",
)
@click.option("--chart", type=PathName(dir_okay=False), help="Also write an HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with whole curves, instead of a table.")
def stats(
    names: tuple[str, ...],
    rows: int | None,
    pooling: int | None,
    seed: int,
    chart: Path | None,
    as_json: bool,
) -> None:
    """Show how local a trace is, or several side by side.

    Says which share of the accesses the hottest rows take, what a cache would hit, how soon rows come
    back, and how often a bag repeats a row.

    A TRACE is a text file with one row number per line, a .npy file, a folder made by `harness trace
    import`, or the name of a synthetic trace: one_item, high, medium, low, random,
    skewed.

    An LRU cache of n rows holds the n rows used last. The stack distance of an access is how many other
    rows were used since the same row was used before: the cache hits it where that is less than n.
    Traces of more than 2 million accesses are sampled for this, and the error is stated.

    Bags are groups of accesses that are added up, as by nn.EmbeddingBag.

    The last line says which synthetic trace one of your own is closest to, and what to expect; of synthetic
    traces, what was measured on them.

    \b
      harness trace stats medium low
      harness trace stats mine.txt medium --rows 500000 --chart mine.html
    """
    from harness import console
    from harness.traces import charts
    from harness.traces import stats as statistics

    names = tuple(dict.fromkeys(names))
    found = {}
    with console.Steps("Traces") as steps:
        steps.expect(2 * len(names) + (chart is not None))
        for name in names:
            steps.now(f"reading {readable(name)}")
            source = _looked_up(name, rows, seed)
            steps.advance()
            steps.now(f"describing {readable(name)}")
            own = source.offsets if pooling is None else None
            found[name] = statistics.describe(
                source.indices, pooling or _POOLING, rows=source.rows, offsets=own
            )
            steps.advance()
        shown = dict(zip(map(readable, _short(names)), found.values(), strict=True))
        if chart is not None:
            steps.now(f"writing {chart}")
            charts.write_page(shown, chart)
    if as_json:
        print_json({readable(name): dataclasses.asdict(described) for name, described in found.items()})
        return
    heading, *lines = statistics.table(shown)
    console.table("Locality", heading, lines, right=heading[1:])
    imported = [name for name in names if name not in SYNTHETIC]
    with console.Steps("Traces") as steps:
        told = [_closest(name, found, rows, seed, steps) for name in imported] or [
            f"{name}: {_expected(name, steps) or 'nothing was measured there yet'}." for name in names
        ]
    for sentence in told:
        say(sentence)
    if chart is not None:
        click.echo(f"Page: {chart}")


def _looked_up(name: str, rows: int | None, seed: int) -> Source:
    """The trace of that name; where there is none, what was meant is said, too."""
    from harness.traces import sources

    try:
        return sources.look_up(name, rows, seed)
    except BadInputError as error:
        raise BadInputError(f"{error}{'' if Path(name).exists() else meant(name, SYNTHETIC)}") from error


def _closest(name: str, found: dict[str, TraceStatistics], rows: int | None, seed: int, steps: Steps) -> str:
    """Which of the paper's datasets a trace is closest to, and what was measured there."""
    from harness.traces import likeness, sources
    from harness.traces import stats as statistics

    for synthetic in SYNTHETIC:
        if synthetic not in found:
            steps.now(f"describing {synthetic}, to compare with")
            made = sources.look_up(synthetic, rows, seed)
            found[synthetic] = statistics.describe(made.indices, _POOLING, rows=made.rows)
    nearest, apart = likeness.nearest(found[name], {known: found[known] for known in SYNTHETIC})
    expected = _expected(nearest, steps)
    if why := _not_measured_as(name):
        measure = f"Before you measure yours, give it another name: this one {why}."
    else:
        measure = f"Measure yours: harness run kernels --dataset {argument(name)}"
        if (known := found[name].rows) is not None:
            measure += f" --set workload.rows={known}"
    expect = f"expect what was measured there: {expected}" if expected else "nothing was measured there yet"
    return (
        f"{readable(name)} is closest to {nearest} (LRU hit rates {apart * 100:.0f} points apart on average);"
        f" {expect}. {measure}"
    )


def _not_measured_as(path: str | Path) -> str:
    """Why no run would take a trace of that name; empty: it would."""
    from harness.experiment import no_dataset_name

    return no_dataset_name(PurePath(path).stem)


def _expected(dataset: str, steps: Steps) -> str:
    """What was the fastest on a synthetic trace; empty where nothing was measured on it."""
    steps.now(f"reading what was measured on {dataset}")
    return "; ".join(filter(None, (_measured(run, dataset) for run in shipped_runs())))


def _measured(run: Path, dataset: str) -> str:
    """Who was fastest on a dataset among the kernels worth serving, in a run that ships with the project;
    empty where the run is of something else."""
    from harness.analysis.peers import over_stock

    if run.name not in _WORTH_SERVING:
        return ""
    (told,) = analysed([run]).runs
    won = told.winner(dataset, told.headline) if dataset in told.datasets else None
    over = told.figure(won.variant, dataset, over_stock(told.headline)) if won else None
    if won is None or over is None:
        return ""
    return f"{won.variant.label}, {over.value:.1f} × PyTorch on {_where(told)}"


def _where(run: Run) -> str:
    return " or ".join(str(gpu) for gpu in run.environment["gpu"])


@trace.command()
@click.argument("name", type=click.Choice(SYNTHETIC), metavar="NAME")
@click.argument("out", type=PathName())
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    default=_ROWS,
    show_default=True,
    help="Rows of the table.",
)
@click.option(
    "--accesses",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many. Default: one period, which accesses as many distinct rows as the paper says.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=1,
    show_default=True,
    help="Another seed, other rows in another order.",
)
def synth(name: str, out: Path, rows: int, accesses: int | None, seed: int) -> None:
    """Write a trace with the locality of a paper's dataset.

    NAME is one_item, high, medium, low, random or skewed. OUT ending in .txt gets one row number per line,
    .npy an array; otherwise it becomes a trace folder. The same arguments give the same trace on every
    machine. Runs need no such file: they take the names.

    \b
      harness trace synth medium medium.npy
      harness trace synth low low.txt --rows 1000000 --accesses 10000000
    """
    from harness import console
    from harness.traces import sources

    with console.Steps("Synthesising") as steps:
        steps.now(name)
        steps.expect(PARTS)
        written = sources.write_synthetic(
            name, out, rows=rows, accesses=accesses, seed=seed, progress=parts(steps)
        )
    click.echo(f"{out}: {written:,} accesses to a table of {rows:,} rows.")


@trace.command("import")
@click.argument("source", type=PathName())
@click.argument("out", type=PathName())
@click.option(
    "--rows", type=click.IntRange(min=1), metavar="N", required=True, help="Rows of the table looked up in."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How SOURCE is made up. Default: what its name's ending tells, otherwise text.",
)
@click.option("--column", help="CSV, TSV, Parquet: the column; #2 is the second of a file without names.")
@click.option("--table", type=click.IntRange(min=0), metavar="N", help="Meta's .pt.gz: which table, from 0.")
@click.option(
    "--mapping",
    type=click.Choice(["rows", "first_appearance"]),
    default="rows",
    show_default=True,
    help="What a column holds: row numbers, or categories, numbered as they first appear.",
)
def import_(
    source: Path,
    out: Path,
    rows: int,
    form: Format | None,
    column: str | None,
    table: int | None,
    mapping: Mapping,
) -> None:
    """Import your own traffic as a trace folder.

    SOURCE is the file to read, OUT the folder to make. The ending of SOURCE tells its format: .csv, .tsv,
    .parquet, .npy, .pt (Meta's public dlrm_datasets, with their bags); anything else is text with one row
    number per line. Files packed by gzip, bzip2, xz or zstd are unpacked while they are read. SOURCE may be a
    pipe, and `-` is standard input. Text, CSV and TSV are read as a stream, so they may be larger than
    memory. Whatever is wrong is named with its place, and then no OUT is left behind.

    Lists in a Parquet column become bags.

    \b
      harness trace import clicks.csv.gz traces/clicks --column item --rows 500000
      harness trace import users.parquet traces/users --column user \\
          --mapping first_appearance --rows 2000000
      harness trace import fbgemm_t856_bs65536_0.pt.gz traces/t3 --table 3 \\
          --rows 5000000
      cut -f4 day_0 | harness trace import - traces/c4 --format tsv \\
          --column '#1' --mapping first_appearance --rows 5000000
    """
    from harness import console
    from harness.traces import formats, streams

    if why := _not_measured_as(out):
        raise BadInputError(f"{readable(out)}: {why}; give OUT another name, for reports and files go by it.")
    with console.Steps("Importing") as steps:
        steps.now(streams.called(source))
        steps.expect(PARTS)
        made = formats.import_trace(
            source,
            out,
            rows=rows,
            form=form,
            column=column,
            table=table,
            mapping=mapping,
            progress=parts(steps),
            warn=steps.say,
        )
    bags = "" if made.header.bags is None else f" in {made.header.bags:,} bags"
    accesses = "1 access" if made.header.accesses == 1 else f"{made.header.accesses:,} accesses"
    click.echo(f"{out}: {accesses}{bags} to a table of {rows:,} rows.")
    click.echo(f"Look at it:  harness trace stats {argument(out)}")
    click.echo(f"Measure it:  harness run kernels --dataset {argument(out)} --set workload.rows={rows}")


def _short(names: Sequence[str]) -> Sequence[str]:
    """Files by their names, where these differ."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(names) else names


trace.add_command(importing.model)
