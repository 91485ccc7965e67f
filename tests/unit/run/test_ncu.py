"""Nsight Compute as a program to find, to call and to read; its texts as it writes them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.run import ncu
from harness.run.ncu import Ncu, UnknownMetricsError

RAW = Path(__file__).resolve().parents[2] / "data" / "ncu" / "raw.csv"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


VERSION = 'echo "NVIDIA (R) Nsight Compute Command Line Profiler"; echo "Version 2025.3.1.0 (build 36398880)"'


def test_launches_with_their_metrics() -> None:
    found = list(ncu.read_csv(RAW.read_text(encoding="utf-8").splitlines(), ncu.METRICS))
    assert len(found) == 10
    lookup = found[2]
    assert lookup.name.startswith("void lookup<")
    assert (lookup.grid, lookup.block) == ("(2048, 1, 1)", "(32, 8, 1)")
    assert lookup.metrics["gpu__time_duration.sum"] == 100_000
    assert lookup.metrics["dram__bytes_read.sum"] == 96_000_000
    assert lookup.metrics["gpc__cycles_elapsed.avg.per_second"] == pytest.approx(1_755_011_204.53)


def test_what_the_profiler_could_not_tell_is_absent_and_not_zero() -> None:
    prepare = list(ncu.read_csv(RAW.read_text(encoding="utf-8").splitlines(), ncu.METRICS))[1]
    assert "dram__throughput.avg.pct_of_peak_sustained_elapsed" not in prepare.metrics
    assert prepare.metrics["l1tex__t_sector_hit_rate.pct"] == 0


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        ("ns", "1,500", 1500),
        ("usecond", "1.5", 1500),
        ("us", "1.5", 1500),
        ("ms", "0.0015", 1500),
        ("Mbyte", "1.5", 1.5e6),
        ("Kbyte", "2", 2000),
        ("Ghz", "1.755", 1.755e9),
        ("cycle/nsecond", "1.755", 1.755e9),
        ("%", "12.5", 12.5),
        ("register/thread", "42", 42),
        ("inst", "3", 3),
        ("", "3 (warning)", 3),
    ],
)
def test_units_of_old_and_new_versions(unit: str, text: str, value: float) -> None:
    lines = ['"Kernel Name","m"', f'"","{unit}"', f'"k","{text}"']
    (launch,) = ncu.read_csv(lines, ["m"])
    assert launch.metrics["m"] == pytest.approx(value)


def test_counters_that_were_not_asked_for_are_absent() -> None:
    lines = RAW.read_text(encoding="utf-8").splitlines()
    lookup = list(ncu.read_csv(lines, ncu.COUNTERS["memory"]))[2].metrics
    assert {"dram__bytes_read.sum", "lts__t_sector_hit_rate.pct", "launch__registers_per_thread"} <= set(
        lookup
    )
    assert not [name for name in lookup if "stalled" in name]


def test_each_choice_of_counters_holds_the_one_before() -> None:
    compute, memory, everything = (set(ncu.COUNTERS[name]) for name in ("compute", "memory", "all"))
    assert compute < memory < everything == set(ncu.METRICS)
    assert len(ncu.METRICS) == len(everything)
    assert {name.split("__")[0] for name in memory - compute} == {"l1tex", "lts", "dram"}


@pytest.mark.parametrize(("counters", "passes"), [("compute", 1), ("memory", 2), ("all", 5)])
def test_how_many_passes_are_about_to_come(counters: str, passes: int) -> None:
    asked = Ncu(Path("ncu"), "1", ncu.COUNTERS[counters])
    assert asked.about_passes == passes
    assert (
        asked.without(["dram__bytes_read.sum", "gpc__cycles_elapsed.avg.per_second"]).about_passes == passes
    )


def test_no_table_is_said() -> None:
    with pytest.raises(MachineError, match="saw no kernel"):
        list(ncu.read_csv(["==WARNING== No kernels were profiled."], ncu.METRICS))


def test_the_program_is_run_again_for_every_pass_with_caches_and_clocks_left_alone() -> None:
    profiler = Ncu(Path("/opt/x/ncu"), "2025.3.1")
    command = profiler.command("/opt/ncu/ncu", "/r/a.ncu-rep", ["python3", "-m", "thing"])
    pairs = list(itertools.pairwise(command))
    assert command[0] == "/opt/ncu/ncu"
    assert command[-3:] == ["python3", "-m", "thing"]
    for pair in [
        ("--replay-mode", "application"),
        ("--cache-control", "none"),
        ("--clock-control", "none"),
        ("--profile-from-start", "off"),
        ("--export", "/r/a.ncu-rep"),
    ]:
        assert pair in pairs


def test_a_metric_that_this_gpu_lacks_is_asked_for_by_its_other_name_or_left_out() -> None:
    lines = [
        "==PROF== Connected to process 20101 (/usr/bin/python3)",
        r"==ERROR== Failed to find metric regex:^dram__bytes_read\.(sum|min|max|avg|pct|ratio|max_rate)$",
        r"==ERROR== Failed to find metric regex:^gpc__cycles_elapsed.avg.per_second(\.|$)",
    ]
    with pytest.raises(UnknownMetricsError) as caught:
        ncu.check_log(lines)
    left = Ncu(Path("ncu"), "1").without(caught.value.names).metrics
    assert "dram__bytes_op_read.sum" in left
    assert not {"dram__bytes_read.sum", "gpc__cycles_elapsed.avg.per_second"} & set(left)
    assert len(left) == len(ncu.METRICS) - 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance "
            "Counters on the target device 0.",
            "NVreg_RestrictProfilingToAdminUsers=0",
        ),
        ("==ERROR== Cuda driver is not compatible with Nsight Compute.", "install a newer one"),
    ],
)
def test_what_stops_every_profile_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(MachineError, match=sentence):
        ncu.check_log(["==PROF== Connected", line])


def test_other_errors_are_quoted() -> None:
    ncu.check_log(["all is well"])
    assert ncu.first_error(["a", "==ERROR== The application returned an error code (11)."]) == (
        "The application returned an error code (11)."
    )
    assert ncu.first_error(["==PROF== fine"]) == ""


def test_a_toolkits_script_leads_to_the_folder_with_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin" / "ncu", VERSION)
    whole = tmp_path / "nsight-compute-2025.3.1"
    script(whole / "ncu", VERSION)
    (whole / "target").mkdir()
    monkeypatch.setenv("HARNESS_NCU", str(tmp_path / "bin" / "ncu"))
    found = ncu.find()
    assert (found.folder, found.version) == (whole, "2025.3.1.0")
    monkeypatch.setenv("HARNESS_NCU", str(whole))
    assert ncu.find().folder == whole
    monkeypatch.delenv("HARNESS_NCU")
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    assert ncu.find().folder == whole


def test_without_it_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_NCU", str(tmp_path))
    with pytest.raises(MachineError, match=f"HARNESS_NCU={tmp_path}"):
        ncu.find()
    monkeypatch.delenv("HARNESS_NCU")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ncu, "_PLACES", ())
    with pytest.raises(MachineError, match="part of the CUDA toolkit"):
        ncu.find()


@pytest.mark.parametrize(
    ("text", "driver", "needed"),
    [
        ("RmProfilingAdminOnly: 0\n", "580.65", ""),
        ("ResmanDebugLevel: 1\nRmProfilingAdminOnly: 1\n", "580.65", "PERFMON"),
        ("RmProfilingAdminOnly: 1\n", "550.54.15", "SYS_ADMIN"),
        (None, "580.65", "PERFMON"),
    ],
)
def test_the_capability_that_the_driver_asks_for(
    text: str | None, driver: str, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(ncu, "_PARAMETERS", path)
    assert ncu.capability(driver) == needed


def test_a_report_is_read_by_the_profiler_itself(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    reading = script(tmp_path / "ncu", f'echo "$@" > {asked}\ncat {RAW}')
    assert len(Ncu(reading, "1").launches(tmp_path / "a.ncu-rep")) == 10
    assert f"--import {tmp_path}/a.ncu-rep --csv --page raw" in asked.read_text(encoding="utf-8")
    failing = script(tmp_path / "bad", 'echo "==ERROR== Not a report."; exit 1')
    with pytest.raises(MachineError, match="Not a report"):
        Ncu(failing, "1").launches(tmp_path / "a.ncu-rep")
