"""What `harness run --dry-run` shows."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.cli.shared import own_runs, print_json, say, shipped_runs

if TYPE_CHECKING:
    from harness.experiment import Experiment
    from harness.run.forecast import Forecast
    from harness.run.part import Part


def show(what: Experiment, part: Part, *, local: bool, as_json: bool) -> None:
    """Prints what a part of an experiment would measure, and starts nothing."""
    from harness import console
    from harness import plan as plans
    from harness.run import forecast, layout

    what = layout.absolute(what)
    whole = plans.make(what)
    planned = dataclasses.replace(whole, launches=tuple(filter(part.has, whole.launches)))
    with console.Steps("Forecast") as steps:
        layout.check_traces(what, planned, steps)
        steps.now("reading records of other runs")
        images = None if local else forecast.image_states(planned)
        found = forecast.forecast(planned, [*own_runs(), *shipped_runs()], images)
    if as_json:
        return print_json(dataclasses.asdict(found) | {"cell_ids": [cell.id for cell in planned.cells]})
    for heading, text in _lines(what, part, found, local=local):
        console.item(heading, text)
    say("Nothing was measured (--dry-run).")


def _lines(what: Experiment, part: Part, found: Forecast, *, local: bool) -> list[tuple[str, str]]:
    from harness.report import names, units

    arms = [f"{arm.label} (reference)" * (arm.label == what.reference) or arm.label for arm in what.arms]
    swept = "".join(f"; swept: {axis.key} over {len(axis.values)} values" for axis in what.sweep)
    return [
        ("what", what.title),
        ("arms", ", ".join(arms)),
        ("datasets", ", ".join(what.datasets)),
        ("work", names.work(what.workload) + swept),
        (
            "cells",
            f"{found.cells:,} in {units.count(found.processes, 'fresh process', 'fresh processes')}, "
            + (f"part {part} of " if part.of > 1 else "")
            + units.count(what.replicates, "replicate"),
        ),
        ("images", "none, on this machine itself" if local else _images(found)),
        ("GPU memory", f"about {units.bytes_(found.gpu_bytes)}" if found.gpu_bytes else "none, on the CPU"),
        ("time", _time(found)),
    ]


def _images(found: Forecast) -> str:
    if found.images is None:
        return "unknown, as Docker cannot be asked; `harness doctor` says why"
    told = [f"{image} {state}" for image, state in found.images.items() if state != "current"]
    return f"{len(found.images)}, " + (f"to be built: {', '.join(told)}" if told else "all up to date")


def _time(found: Forecast) -> str:
    if found.seconds is None:
        return "unknown: no run here is of the same work and protocol"
    minutes = found.seconds / 60
    about = f"{found.seconds:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min"
    rest = found.cells - found.told
    besides = f"; of {rest:,} cells nothing is known" if rest else ""
    return f"about {about}, as like cells took on {', '.join(found.measured_on)}{besides}" + (
        "; building images comes on top" if found.images else ""
    )
