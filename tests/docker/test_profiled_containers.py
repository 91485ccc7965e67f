"""A container that a profiler looks into: the host's profiler, one capability, one folder to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import plan
from harness.experiment import Experiment
from harness.records import CellRecord, Variant, Workload, load, to_json, write_whole
from harness.run import docker as docker_runner
from harness.run import lease, ncu
from harness.run.docker import DockerRunner
from harness.run.ncu import Ncu

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900), pytest.mark.usefixtures("built")]

BITS = {"PERFMON": 1 << 38, "SYS_ADMIN": 1 << 21}


@pytest.mark.parametrize("capability", ["PERFMON", "SYS_ADMIN", ""])
def test_the_hosts_profiler_runs_the_program_inside(
    capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_runner, "capability", lambda driver: capability)
    profiler = tmp_path / "nsight" / "ncu"
    profiler.parent.mkdir()
    # Writes who it is where the report belongs, then runs what follows: the program.
    profiler.write_text(
        '#!/bin/sh\nwhile [ "$1" != --export ]; do shift; done\n'
        '{ id -u; sed -n "s/^CapEff:\\t//p" /proc/self/status; } > "$2"; shift 2; exec "$@"\n',
        encoding="utf-8",
    )
    profiler.chmod(0o755)
    root = tmp_path / "run"
    launch = plan.make(
        Experiment(
            name="small",
            title="A small one",
            arms=(Variant("baseline", "12.1"),),
            reference="baseline@12.1",
            datasets=("random",),
            workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device="cpu"),
            replicates=1,
        )
    ).launches[0]
    (cell,) = launch.cells
    (root / "cells" / cell.id).mkdir(parents=True)
    write_whole(root / "cells" / cell.id / "cell.json", to_json(cell))
    (root / ncu.FOLDER).mkdir()
    (root / ncu.FOLDER).chmod(0o777)
    lines: list[str] = []
    with lease.run_folder(root):
        outcome = DockerRunner().run(
            launch, root, deadline_s=120, on_line=lines.append, under=Ncu(profiler, "2025.3.1")
        )
    assert (outcome.status, outcome.message) == ("ended", ""), lines
    user, effective = (root / ncu.report_of(launch)).read_text(encoding="utf-8").split()
    assert int(effective, 16) == BITS.get(capability, 0)
    assert (user == "0") == bool(capability)
    # On the CPU there is nothing to profile, which the program says where it would have told of its kernel.
    record = load(CellRecord, root / ncu.FOLDER / f"{cell.id}.json")
    assert "Only lookups on a GPU" in record.message
    assert not (root / "cells" / cell.id / "record.json").exists()
