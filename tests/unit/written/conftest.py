"""A place with all that pages speak of."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness import experiment
from tests import synthetic_run as synthetic
from tests.unit.written.made_up import RUNS, of_two_boards, profile
from tests.unit.written.records import COSTS, PLAN, SERVING, TESTS
from tests.written.runs import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All runs that pages speak of, made up; of each record besides one too."""
    folder = tmp_path_factory.mktemp("reference")
    for name, overrides in RUNS.items():
        found = experiment.find(name.removesuffix("_float16"))
        # A test of what is written needs no more processes than shows that there are several.
        what = dataclasses.replace(experiment.read(found, overrides), replicates=4)
        synthetic.write_run(folder / "h200" / name, what, of_two_boards)
    profile(folder / "h200" / "kernels", {"fused": 40e6, "fbgemm": 80e6})
    for path, record in (("serving", SERVING), ("costs", COSTS), ("tuned/dlrm_dcnv2", PLAN)):
        file = folder / "h200" / ("serving/serving.json" if path == "serving" else f"{path}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    (folder / "gpu-tests-2.json").write_text(json.dumps(TESTS), encoding="utf-8")
    return Place(folder, folder / "none")
