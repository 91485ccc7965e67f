"""README and docs say of the package's records, and of tests on GPUs, what these say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_wheel import sources
from tests import written_results
from tests.unit.written.records import COSTS, GPU, SERVING
from tests.written.runs import Place

pytestmark = pytest.mark.xdist_group("written results")  # where the place is made


@pytest.mark.parametrize("changed", ["", "embedding_kernels"])
def test_costs_of_a_package_that_has_changed_since_are_told_so(tmp_path: Path, changed: str) -> None:
    of_record = {name: "another" if name == changed else now for name, now in sources.of_today().items()}
    (tmp_path / "h200").mkdir()
    record = json.dumps(COSTS | {"sources": of_record})
    (tmp_path / "h200" / "costs.json").write_text(record, encoding="utf-8")
    told = "of older sources: embedding_kernels changed since."
    assert (told in written_results.block("costs", Place(tmp_path))) is bool(changed)


def test_what_serving_gains_is_told_of_todays_sources_alone(place: Place, tmp_path: Path) -> None:
    told = f"On {GPU}, TorchRec's dlrm_dcnv2 gains, whole, p50 at batches 64 and 64: eager 1.50× and 1.50×.\n"
    assert written_results.block("served", place) == told
    (tmp_path / "h200" / "serving").mkdir(parents=True)
    record = json.dumps(SERVING | {"sources": {"fused": "another"}})
    (tmp_path / "h200" / "serving" / "serving.json").write_text(record, encoding="utf-8")
    assert written_results.block("served", Place(tmp_path)) == written_results.NOT_MEASURED
    told = "commit c0ffeec0ffee, of older sources: fused changed since."
    assert told in written_results.block("serving", Place(tmp_path))


def test_serving_costs_plans_and_tests_are_told(place: Place) -> None:
    served = written_results.block("serving", place)
    assert "| 64, eager | 3,000 / 6,000 / 9,000 | 2,000 / 4,000 / 6,000 | 1.50× | 333 | 500 |" in served
    assert "| 64, CUDA graph | 400.0 / 800.0 / 1,200 | – | – | 2,500 | – |" in served
    assert "commit c0ffeec0ffee.\n" in served
    assert "Unfinished" not in served
    costs = written_results.block("costs", place)
    assert "102.0 µs beside 100.0 µs (+2.0%)" in costs.replace(" %", "%")
    assert "| host, 12 tables, behind other calls | 10.5 µs |" in costs
    assert "| host, PyTorch's least operation, behind other calls | 6.2 µs |" in costs
    assert "5.0 MB" in costs
    assert "commit c0ffeec0ffee with changes." in costs
    assert (
        "| dlrm_dcnv2 | 26 | `fused crowded_clocks=450` | 30.2 | 90.5 | 20.0 | 40.0 |"
        in written_results.block("plans", place)
    )
    tests = written_results.block("tests_on_gpus", place)
    assert f"On 2 GPUs ({GPU}), driver 580.1, PyTorch 2.11.0: 1,234 passed, 0 failed, 2 skipped" in tests
    assert "files changed since." in tests


def test_an_unfinished_comparison_is_told_as_unfinished_and_an_older_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "h200" / "serving" / "serving.json"
    file.parent.mkdir(parents=True)
    record = SERVING | {"finished": False, "asked_batches": [64, 4096, 16384]}
    file.write_text(json.dumps(record), encoding="utf-8")
    told = written_results.block("serving", Place(tmp_path, tmp_path))
    assert "| 64, eager |" in told
    assert told.endswith("\nUnfinished: not measured at batches of 4,096, 16,384.\n")
    file.write_text(json.dumps(record | {"schema_version": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="is of version 1 and not 2"):
        written_results.block("serving", Place(tmp_path, tmp_path))
