"""Odd machines: a sentence or the usual result, never a traceback, and nothing that was measured is lost."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import console, outputs
from harness.cli import obstacles, shared
from harness.errors import BadInputError, CellsFailedError, InterruptedRunError, ReportError
from harness.records import write_whole

REPOSITORY = Path(__file__).resolve().parents[3]
SMOKE = ("run", "smoke", "--local", "--set", "replicates=1", "--set", 'datasets=["one_item"]')
NO_UTF8 = os.fsdecode(b"caf\xe9")


@dataclass
class Ended:
    """How the program ended."""

    code: int
    out: bytes
    err: str

    @property
    def sentence(self) -> str:
        """The last line on stderr; progress comes before it."""
        return (self.err.splitlines() or [""])[-1]


Run = Callable[..., Ended]


@pytest.fixture
def harness(tmp_path: Path) -> Run:
    """Runs the program as a process of its own, in a folder that holds t.txt. `lacking`: a package that is
    not installed; `shell`: what comes behind the command; `environment`: variables, None for unset ones."""
    (tmp_path / "t.txt").write_text("1\n2\n", encoding="utf-8")

    def run(
        *arguments: str,
        shell: str = "",
        lacking: str = "",
        before: str = "",
        environment: dict[str, str | None] | None = None,
        given: bytes | None = None,
    ) -> Ended:
        paths = [str(REPOSITORY)]
        if lacking:
            (tmp_path / "site").mkdir(exist_ok=True)
            text = f"import sys\nsys.modules[{lacking!r}] = None\n"
            (tmp_path / "site" / "sitecustomize.py").write_text(text, encoding="utf-8")
            paths.insert(0, str(tmp_path / "site"))
        changed = {"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1", **(environment or {})}
        variables = {k: v for k, v in {**os.environ, **changed}.items() if v is not None}
        command = f'{before}"$0" -m harness.cli "$@" {shell}'
        ended = subprocess.run(
            ["bash", "-c", command, sys.executable, *arguments],
            env=variables,
            cwd=tmp_path,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            check=False,
        )
        err = ended.stderr.decode(errors="replace")
        assert "Traceback" not in err
        return Ended(ended.returncode, ended.stdout, err)

    return run


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "iso-8859-1:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_a_terminal_that_lacks_characters(harness: Run, environment: dict[str, str | None]) -> None:
    shown = harness("designs", environment={"PYTHONIOENCODING": None, **environment})
    assert shown.code == 0
    assert shown.out.isascii()
    assert b" ... " in shown.out, "what a design does, cut"


def test_a_whole_run_in_latin_1(harness: Run) -> None:
    latin = {"PYTHONIOENCODING": "iso-8859-1"}
    ran = harness(*SMOKE, "--output", "r", environment=latin)
    assert ran.code == 0
    assert b"\nReport: r/report.html\n" in ran.out
    shown = harness("report", "r", "--format", "md", "--output", "/dev/stdout", shell="| cat")
    assert b"\n### Smoke" in shown.out


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-"])
def test_streams_that_are_closed(harness: Run, tmp_path: Path, closed: str) -> None:
    assert harness("trace", "import", "t.txt", "o", "--rows", "10", shell=closed).code == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["indices.npy", "trace.json"]
    assert harness("trace", "import", "absent", "p", "--rows", "10", shell=closed).code == 2
    assert harness("designs", shell=closed).code == 0


def test_a_child_process_does_not_write_into_what_took_a_closed_number(harness: Run, tmp_path: Path) -> None:
    """The measuring process prints; with stdout closed, the next file to be opened would be its stdout."""
    assert harness(*SMOKE, "--output", "r", shell=">&- 2>&-").code == 0
    for path in (tmp_path / "r").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


def test_standard_input_that_is_closed(harness: Run) -> None:
    ended = harness("trace", "import", "-", "o", "--rows", "10", shell="<&-")
    assert (ended.code, ended.sentence) == (2, "harness: standard input: is closed; name a file.")


def test_nobody_reads_what_is_printed(harness: Run, tmp_path: Path) -> None:
    """A pipe whose reader has gone: the work is done, and exit codes stay what they are."""
    for arguments, code in ((("designs",), 0), (("trace", "import", "t.txt", "o", "--rows", "10"), 0)):
        assert harness(*arguments, shell="| true; exit ${PIPESTATUS[0]}").code == code
    assert (tmp_path / "o" / "trace.json").is_file()
    ended = harness(
        "trace", "import", "t.txt", "p", "--rows", "1", shell="2>&1 | true; exit ${PIPESTATUS[0]}"
    )
    assert ended.code == 2


def test_a_full_disk_behind_standard_output(harness: Run) -> None:
    for arguments in (("designs",), ("designs", "--json")):
        ended = harness(*arguments, shell="> /dev/full")
        assert ended.code in (2, 5)
        assert "standard output" in ended.sentence
        assert len(ended.err.splitlines()) == 1


def test_a_full_disk_behind_standard_error(harness: Run, tmp_path: Path) -> None:
    """What a command does, and its exit code, do not depend on its log."""
    for arguments, code in (
        (("trace", "import", "t.txt", "o", "--rows", "10"), 0),
        (("trace", "import", "nothing", "p", "--rows", "10"), 2),
        (("nonsense",), 2),
    ):
        assert harness(*arguments, shell="2> /dev/full").code == code
    assert (tmp_path / "o" / "trace.json").is_file()


def test_the_working_directory_is_gone(harness: Run) -> None:
    before = "mkdir gone && cd gone && rmdir ../gone && "
    for arguments in (("designs",), ("trace", "import", "t.txt", "o", "--rows", "9"), SMOKE):
        ended = harness(*arguments, before=before)
        assert ended.code == 2
        assert ended.sentence.startswith("harness: The folder that this was started in cannot be had")
    assert harness("--help", before=before).code == 0


WITHOUT_HOME: dict[str, str | None] = {"HOME": None, "XDG_CACHE_HOME": None, "HARNESS_CACHE_DIR": None}


def in_a_world_without_users() -> str:
    """What a command begins with that runs as a user without an entry, as in a container."""
    command = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs unshare and user namespaces")
    return " ".join(command) + " "


def test_a_user_without_a_home(harness: Run) -> None:
    before = in_a_world_without_users()
    ended = harness("compile", "baseline", before=before, environment=WITHOUT_HOME)
    assert ended.code == 5
    assert "HARNESS_CACHE_DIR (or XDG_CACHE_HOME)" in ended.sentence
    ran = harness(*SMOKE, "--output", "r", before=before, environment=WITHOUT_HOME)
    assert ran.code == 0, ran.sentence
    assert b"Report: r/report.html" in ran.out
    home: dict[str, str | None] = {**WITHOUT_HOME, "HOME": "/nonexistent"}
    assert harness("compile", "baseline", environment=home).sentence == ended.sentence
    nowhere: dict[str, str | None] = {**WITHOUT_HOME, "HARNESS_CACHE_DIR": "/proc/nowhere"}
    ended = harness("compile", "baseline", environment=nowhere)
    assert ended.code == 5
    assert "nothing can be kept here" in ended.sentence
    assert "set HARNESS_CACHE_DIR" in ended.sentence


@pytest.mark.parametrize("package", ["altair", "scipy"])
def test_a_missing_package_hides_no_record(harness: Run, tmp_path: Path, package: str) -> None:
    ran = harness(*SMOKE, "--output", "r", lacking=package)
    assert ran.code == 7
    assert f"needs the Python package {package}, which is not installed" in ran.sentence
    assert ran.sentence.endswith("Every record is in r; `harness report r` shows it once that is mended.")
    assert len(list(tmp_path.glob("r/cells/*/record.json"))) == 1
    assert (b"Speedup over stock" in ran.out) == (package != "scipy"), "what can be shown is shown"
    ended = harness("report", "r", lacking=package)
    assert ended.code == 5
    assert ended.sentence.endswith(f"install it with: pip install {package}")


def test_what_happens_after_measuring(tmp_path: Path) -> None:
    def ending(error: BaseException) -> str:
        with (
            pytest.raises((ReportError, InterruptedRunError)) as caught,
            obstacles.records_are_safe(tmp_path),
        ):
            raise error
        assert caught.value.__cause__ is error
        return f"{caught.value.exit_code} {caught.value}"

    shows = f"Every record is in {tmp_path}; `harness report {tmp_path}` shows it"
    for error, told in [
        (
            BadInputError("t.html.j2: is broken."),
            "7 All is measured, but it could not be shown: t.html.j2: is",
        ),
        (OSError(28, "No space left on device", "r.html"), "r.html: the disk is full"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero. Every record"),
        (MemoryError(), "more memory than there is"),
        (KeyboardInterrupt(), "130 Interrupted after all was measured."),
    ]:
        said = ending(error)
        assert told in said
        assert shows in said
        assert "\n" not in said
    with pytest.raises(CellsFailedError), obstacles.records_are_safe(tmp_path):
        raise CellsFailedError("1 of 2 cells")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files"), "5 The system refuses: Too many open files."),
        (
            OSError(13, "Permission denied", b"caf\xe9"),
            "2 caf\\xe9: Permission denied; choose another place.",
        ),
        (
            ModuleNotFoundError(name="pynvml"),
            "5 This needs the Python package pynvml, which is not installed; ",
        ),
        (
            ImportError("libx.so", name="scipy.linalg"),
            "5 The Python package scipy does not load here (libx.so)",
        ),
    ],
)
def test_what_the_system_says(error: Exception, said: str) -> None:
    told = obstacles.obstacle(error)
    assert told is not None
    assert f"{told.exit_code} {told}".startswith(said)


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("x"), ModuleNotFoundError(name="harness.cli.x"), ImportError("x")]
)
def test_a_defect_of_ours_keeps_its_traceback(error: Exception) -> None:
    assert obstacles.obstacle(error) is None


def test_names_that_are_no_utf8(harness: Run, tmp_path: Path) -> None:
    """In all that is written and printed their bytes are spelt out."""
    source = tmp_path / f"{NO_UTF8}.txt"
    shutil.copy(tmp_path / "t.txt", source)
    assert harness("trace", "import", source.name, f"T{NO_UTF8}", "--rows", "10").code == 0
    stats = harness("trace", "stats", source.name, "--json", "--chart", f"C{NO_UTF8}.html")
    assert list(json.loads(stats.out)) == [r"caf\xe9.txt"]
    assert r"Locality of caf\xe9.txt" in (tmp_path / f"C{NO_UTF8}.html").read_text(encoding="utf-8")
    ran = harness(*SMOKE, "--output", f"R{NO_UTF8}")
    assert ran.code == 0, ran.sentence
    assert rb"Report: Rcaf\xe9/report.html" in ran.out
    assert r"Rcaf\xe9" in (tmp_path / f"R{NO_UTF8}" / "report.html").read_text(encoding="utf-8")
    for form in ("json", "md"):
        shown = harness("report", f"R{NO_UTF8}", "--format", form)
        assert shown.code == 0
        assert b"udce9" not in shown.out
    (line,) = json.loads(harness("runs", ".", "--json").out)
    assert line["folder"] == r"Rcaf\xe9"
    for dataset in (source.name, f"T{NO_UTF8}"):
        ended = harness(*SMOKE, "--set", f'datasets=["{dataset}"]', "--output", "Q")
        assert ended.code == 2
        assert "datasets.0: holds U+DCE9, which cannot be shown" in ended.sentence
    (tmp_path / NO_UTF8).mkdir()
    ended = harness(*SMOKE, "--set", 'datasets=["../t.txt"]', "--output", "../Q", before=f"cd {NO_UTF8} && ")
    assert ended.code == 2
    assert r"caf\xe9/../t.txt: is no UTF-8, as the files of a run are; rename it" in ended.sentence
    assert not (tmp_path / "Q").exists()


def test_nothing_is_taken_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be called as rich's markup is written."""
    name = "[/x].txt"
    monkeypatch.setattr(console._err, "_force_terminal", True)
    with console.Steps(name) as steps:
        steps.now(name)
        steps.say(name)
        console._err.print(steps._bar.get_renderable())  # as a terminal is shown it again and again
    console.table(name, ["[b]", name], [("[/]", name)], right=[name])
    shown = capsys.readouterr()
    assert shown.out.count(name) == 3
    assert "[b]" in shown.out
    assert f"{name}: {name}" in shown.err


def test_a_pipe_is_written_into_and_a_device_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    shared.put("text", pipe)
    assert os.read(reader, 99) == b"text"
    assert pipe.is_fifo()
    os.close(reader)
    # The pipe stands for a device, which only root can make, and which nobody else should risk.
    monkeypatch.setattr(stat, "S_ISCHR", stat.S_ISFIFO)
    with pytest.raises(BadInputError, match="is a device, and is not replaced"):
        write_whole(pipe, "text")
    assert pipe.is_fifo()
    # As /dev/stdout is where it was led into a file.
    (tmp_path / "file").write_text("long ago", encoding="utf-8")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "stdout").symlink_to(tmp_path / "file")
    monkeypatch.setattr(outputs, "_NO_FILES", (tmp_path / "dev",))
    shared.put("text", tmp_path / "dev" / "stdout")
    assert (tmp_path / "dev" / "stdout").is_symlink()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "text"
