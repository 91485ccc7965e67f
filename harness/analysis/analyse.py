"""From the folders of runs to the one value that every printer shows."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis import (
    claims,
    figure_sources,
    frame,
    kinds,
    limits,
    peers,
    pins,
    profiles,
    provenance,
    results,
    side_by_side,
    sweeps,
    trust,
)
from harness.analysis.differences import differences
from harness.analysis.figure_sources import inference
from harness.analysis.figures import COMPARED, Figure, Place
from harness.analysis.report import SCHEMA_VERSION, Method, Named, Report, Run
from harness.analysis.results import Measured
from harness.records import Variant
from harness.text import clean

if TYPE_CHECKING:
    from harness.designs import Tunable


def analyse(
    folders: Sequence[Path],
    seed: int = 0,
    *,
    today: Mapping[str, str] | None = None,
    tunables: Mapping[str, Mapping[str, Tunable]] | None = None,
) -> Report:
    """Everything that is known of these runs; equal records and bootstrap seed give equal figures.

    `today`: source hashes by design; of runs that measured other sources, the report says so. `tunables`: by
    design those whose values have names, by which the report then calls them.

    BadInputError where a folder holds no run, or a file in it is not what it should be.
    """
    measured = [results.measure(run, seed) for run in frame.load(folders)]
    return Report(
        schema_version=SCHEMA_VERSION,
        method=Method(),
        runs=_told_apart([_run(found, today or {}, tunables or {}) for found in measured]),
        beside=side_by_side.find(measured),
        claims=claims.find(measured),
    )


def _told_apart(runs: list[Run]) -> list[Run]:
    """Runs of one experiment, changed or not, have one title: their names tell them apart."""
    titles = Counter(run.title for run in runs)
    return [
        dataclasses.replace(run, title=f"{run.title} ({run.name})") if titles[run.title] > 1 else run
        for run in runs
    ]


def _run(found: Measured, today: Mapping[str, str], tunables: Mapping[str, Mapping[str, Tunable]]) -> Run:
    run = found.run
    cells = provenance.cells(run)
    findings = trust.examine(found, today)
    measured = {metric for _, _, metric in found.measurements}
    others = [metric for metric in (*found.compared, *inference.WAYS) if metric in measured]
    return Run(
        name=run.name,
        folder=clean(run.folder.name),
        title=run.title,
        reference=run.reference,
        headline=found.headline,
        compared=found.compared,
        variants=run.variants,
        datasets=run.datasets,
        on_cpu=run.on_cpu,
        planned=len(cells),
        measured=sum(cell.measured for cell in cells),
        verdict=trust.verdict(findings),
        findings=findings,
        environment_differences=differences(run),
        protocol=provenance.protocol(run),
        places=_places(found),
        winners=[
            won
            for dataset, metric in itertools.product(run.datasets, COMPARED)
            if (won := found.winner(dataset, metric))
        ],
        peers=peers.find(found),
        fastest_peers=peers.find_of_all(found),
        ratios={metric: results.every_ratio(found, metric) for metric in others if len(run.variants) > 1},
        limits=found.limits,
        machine=limits.machine(run),
        pins=pins.find(found),
        sweep=sweeps.find(found),
        profile=profiles.find(run),
        traces=provenance.traces(run, found.limits),
        ceilings=provenance.ceilings(run),
        environment=provenance.environment(run),
        cells=cells,
        kinds=kinds.find(run),
        named=list(_named(run.variants, tunables)),
    )


def _named(variants: Sequence[Variant], tunables: Mapping[str, Mapping[str, Tunable]]) -> Iterator[Named]:
    for design in dict.fromkeys(variant.design for variant in variants):
        for key, tunable in tunables.get(design, {}).items():
            set_ = {v.tunables[key] for v in variants if v.design == design and key in v.tunables}
            called = dict(zip(tunable.values, tunable.names, strict=True))
            if values := sorted(set_ & called.keys()):
                yield Named(design, key, values, [called[value] for value in values], tunable.summary)


def _places(found: Measured) -> list[Place]:
    run = found.run
    figures: dict[tuple[Variant, str], list[Figure]] = {}
    for variant, dataset, figure in figure_sources.every_figure(found):
        figures.setdefault((variant, dataset), []).append(figure)
    places = []
    for variant, dataset in itertools.product(run.variants, run.datasets):
        records = run.at(variant, dataset)
        spreads = results.spreads(records)
        if own := figures.get((variant, dataset)):
            settings = sweeps.settings(records[0].cell)
            places.append(Place(variant, dataset, "", settings, own, spreads))
    return places
