"""Checks designs' kernels on the CPU, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import designs
from harness.build.instances import Instance
from harness.designs import OUTPUTS, Design
from harness.emulator import all_tables, lookups
from harness.emulator.checking import Check, WrongResultError
from harness.emulator.program import DeviceError, Program
from harness.errors import BadInputError
from harness.progress import Progress, Silent


@dataclass(frozen=True)
class Finding:
    """What came of one check of one design."""

    design: str
    check: str
    kernels: int
    """How many instances passed."""
    wrong: str
    """What the first that did not did instead; empty where all passed."""


def checks_of(design: Design) -> list[Check]:
    """Everything that its kernels have to get right."""
    return all_tables.checks(design) if design.all_tables else lookups.checks(design)


def usual(design: Design, instances: Sequence[Instance]) -> list[Instance]:
    """Of a design for all tables those that write the usual type of results; of the others all."""
    return [i for i in instances if not i.output_dtype or i.output_dtype == OUTPUTS[i.dtype][0]]


def examine_all(names: Sequence[str] = (), *, progress: Progress | None = None) -> list[Finding]:
    """What came of every check of these designs; of all that have kernels where none is named.

    BadInputError for a design without kernels of ours, and as `compiled` raises.
    """
    progress = progress or Silent()
    found = [designs.get(name) for name in names] or [d for d in designs.discover().values() if d.compiled]
    if others := [design.name for design in found if not design.compiled]:
        raise BadInputError(f"{others[0]} brings no kernel that could be checked: it is another library.")
    progress.expect(sum(len(checks_of(design)) for design in found))
    findings = []
    for design in found:
        progress.now(f"{design.name}: compiling for this CPU")
        with Program(design) as program:
            progress.now(design.name)
            for finding in examine(program):
                findings.append(finding)
                progress.advance()
    return findings


def examine(program: Program) -> Iterator[Finding]:
    """Runs every check, each until an instance fails it."""
    for check in checks_of(program.design):
        passed, wrong = 0, ""
        for instance in program.instances:
            if not check.functions(instance):
                continue
            try:
                check.run(program, instance)
            except DeviceError as error:
                wrong = str(error)
            except WrongResultError as error:
                wrong = f"{instance.expression}: {error}"
            if wrong:
                break
            passed += 1
        yield Finding(program.design.name, check.title, passed, wrong)
