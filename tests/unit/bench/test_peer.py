"""Other libraries in a design's place: the same tables, indices and check, on the CPU."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import markupsafe._speedups
import pytest

from harness import designs
from harness.bench.cell import Bench
from harness.codec import parse
from harness.records import PYTORCH, Cell, CellRecord, Timing, to_json
from harness.run import installed

PLAIN = """
import torch

def version():
    return "Other 1.0"

def make(batch, tunables):
    return lambda given: lambda: torch.cat([given.lookup(t) for t in range(given.work.tables)], dim=1)
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a peer called `other` of the text of its peer.py, and lets this process carry it."""

    def make(text: str) -> None:
        folder = tmp_path / "other"
        folder.mkdir()
        (folder / "peer.py").write_text(text, encoding="utf-8")
        monkeypatch.setenv("HARNESS_PEER", str(folder))

    return make


@pytest.fixture
def peers_cell(cell: Callable[..., Cell]) -> Callable[..., Cell]:
    return lambda design="other", **changes: cell(design=design, toolchain=PYTORCH, **changes)


def test_a_peer_is_checked_and_timed_in_one_call(
    other: Callable[[str], None], peers_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    other(PLAIN)
    record = Bench(tmp_path).measure(peers_cell(tables=4, bags="ragged"))
    assert (record.status, record.message) == ("ok", "")
    passes = record.facts["passes"]
    assert {name: len(samples) for name, samples in record.samples.items()} == {
        "kernel_us": passes,
        "stage_us": passes,
    }
    assert record.check is not None
    assert record.check.elements == (4 + 2 + 4) * 32 * 16, "the second batch has no ragged bags to come"
    assert record.kernel is not None
    assert (record.kernel.name, record.kernel.compiler, record.kernel.arch) == ("other", "Other 1.0", "cpu")


@pytest.mark.parametrize(
    ("mistake", "place"),
    [
        ("output[5, 3 * 16 + 7] += 1", "table 3, bag 5, column 7: "),
        ("output[-1, -1] += given.offsets[1] == 0", "table 3 in ragged bags, bag 31, column 15: "),
        ("output[7, 16] += given is not batch", "table 1, batch 1, bag 7, column 0: "),
        ("output = output[:, :16]", r"table 0: the output is \[32, 16\] torch.float32, not \[32, 64\]"),
    ],
)
def test_a_peer_that_is_wrong_is_invalid(
    other: Callable[[str], None],
    peers_cell: Callable[..., Cell],
    tmp_path: Path,
    mistake: str,
    place: str,
) -> None:
    wrong = f"""
def make(batch, tunables):
    right = _make(batch, tunables)
    def bind(given):
        def lookup():
            output = right(given)()
            {mistake}
            return output
        return lookup
    return bind
"""
    other(PLAIN.replace("def make", "def _make") + wrong)
    record = Bench(tmp_path).measure(peers_cell(tables=4))
    assert record.status == "invalid"
    assert re.search(place, record.message), record.message


HALF = """
import torch

def version():
    return "Half 1.0"

def make(batch, tunables):
    return lambda given: lambda: looked_up(given)

def looked_up(batch):
    bags = torch.bucketize(torch.arange(batch.work.lookups), batch.offsets, right=True) - 1
    sums = []
    for table, indices in enumerate(batch.indices):
        values = batch.tables.quantised.dequantise(table, indices).half().float()
        sums.append(torch.zeros(batch.work.batch, batch.work.dim).index_add_(0, bags, values).half())
    return torch.cat(sums, dim=1)
"""


@pytest.mark.parametrize(("declared", "status"), [("", "invalid"), ("VALUES_IN_FLOAT16 = True", "ok")])
def test_a_peer_that_adds_up_float16_values_has_to_say_so(
    other: Callable[[str], None],
    peers_cell: Callable[..., Cell],
    tmp_path: Path,
    declared: str,
    status: str,
) -> None:
    other(HALF + declared)
    record = Bench(tmp_path).measure(peers_cell(dtype="int8"))
    assert record.status == status
    assert record.facts.get("values_in_float16", 0.0) == bool(declared)


def test_what_this_process_carries_must_be_what_the_cell_asks_for(
    other: Callable[[str], None],
    peers_cell: Callable[..., Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unset = Bench(tmp_path).measure(peers_cell())
    assert (
        unset.message == "The cell asks for other, but HARNESS_PEER names no peer that this process carries."
    )
    other(PLAIN)
    another = Bench(tmp_path).measure(peers_cell("fbgemm"))
    assert another.message == "The cell asks for fbgemm, but other is what this process carries."
    stock = Bench(tmp_path).measure(peers_cell("stock"))
    assert stock.kernel is not None
    assert stock.kernel.name == PYTORCH


@pytest.mark.parametrize("line", ["import no_such_library", "raise OSError('a.so: undefined symbol\\nmore')"])
def test_a_library_that_is_missing_or_broken_is_one_sentence_with_the_remedy(
    other: Callable[[str], None], peers_cell: Callable[..., Cell], tmp_path: Path, line: str
) -> None:
    other(f"{line}\n{PLAIN}")
    record = Bench(tmp_path).measure(peers_cell())
    assert record.status == "failed"
    assert re.fullmatch(
        r"other cannot be loaded here \((No module named 'no_such_library'|a.so: undefined symbol)\): "
        r"measure it in its image \(`harness build other`\), or install what "
        r"opt_designs/other/requirements.txt lists beside this PyTorch\.",
        record.message,
    )


WITH_LIBRARIES = """
import ctypes
from pathlib import Path

FOLDER = Path({folder!r})
LOADED = [ctypes.CDLL(str(FOLDER / name)) for name in {names!r}]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with shared libraries: three in its folder, each a file of its own, and one linked to."""
    folder = tmp_path / "madeup"
    (folder / "inner").mkdir(parents=True)
    for name in ("first.so", "inner/second.so.1", "unused.so"):
        shutil.copy(markupsafe._speedups.__file__, folder / name)
        with (folder / name).open("ab") as file:
            file.write(name.encode())  # behind what is loaded of it: other contents, the same code
    (tmp_path / "store.so").write_bytes((folder / "first.so").read_bytes() + b"linked")
    (folder / "linked.so").symlink_to(tmp_path / "store.so")
    (folder / "notes.txt").write_text("no library", encoding="utf-8")
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_tells_by_hashes_which_shared_libraries_of_the_peer_were_loaded(
    other: Callable[[str], None], peers_cell: Callable[..., Cell], tmp_path: Path, package: Path
) -> None:
    names = ["first.so", "inner/second.so.1", "linked.so"]
    other(WITH_LIBRARIES.format(folder=str(package), names=names) + PLAIN)
    record = Bench(tmp_path).measure(peers_cell())
    assert (record.status, record.message) == ("ok", "")
    assert record.kernel is not None
    assert record.kernel.libraries == {f"madeup/{name}": sha256(package / name) for name in names}
    assert parse(CellRecord, to_json(record).encode(), "record") == record


def test_a_library_that_is_replaced_under_a_running_process_is_told(
    other: Callable[[str], None], peers_cell: Callable[..., Cell], tmp_path: Path, package: Path
) -> None:
    replaced = """
(FOLDER / "new").write_bytes(b"another")
(FOLDER / "new").rename(FOLDER / "first.so")
"""
    other(WITH_LIBRARIES.format(folder=str(package), names=["first.so"]) + replaced + PLAIN)
    record = Bench(tmp_path).measure(peers_cell())
    assert record.status == "failed"
    assert record.message == (
        f"{package}/first.so: was replaced while this process had it loaded; measure again."
    )


def test_what_has_no_libraries_is_recorded_as_ever(
    other: Callable[[str], None], peers_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    other(PLAIN)
    record = Bench(tmp_path).measure(peers_cell())
    assert "libraries" not in json.loads(to_json(record))["kernel"]


@pytest.fixture
def fbgemm(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fbgemm_gpu", reason="needs FBGEMM for the CPU (fbgemm-gpu-cpu)")
    monkeypatch.setenv("HARNESS_PEER", str(designs.get("fbgemm").folder))


@pytest.mark.usefixtures("fbgemm")
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
@pytest.mark.parametrize(
    ("mode", "weighted", "index_dtype"),
    [("sum", False, "int64"), ("sum", True, "int32"), ("mean", False, "int64")],
)
def test_fbgemm_itself_agrees_with_the_reference(
    peers_cell: Callable[..., Cell], tmp_path: Path, dtype: str, index_dtype: str, mode: str, weighted: bool
) -> None:
    one = peers_cell(
        "fbgemm",
        dim=20,
        dtype=dtype,
        index_dtype=index_dtype,
        mode=mode,
        weighted=weighted,
        bags="ragged",
        timing=Timing(warmup_passes=1, min_passes=3, max_passes=3),
    )
    assert designs.unsupported(designs.get("fbgemm"), one.workload) == ""
    record = Bench(tmp_path).measure(one)
    assert (record.status, record.message) == ("ok", "")
    assert record.kernel is not None
    assert re.fullmatch(r"FBGEMM \d+\.\d+\.\d+, bounds check off", record.kernel.compiler)
    name = "fbgemm_gpu/fbgemm_gpu_tbe_inference.so"
    assert record.kernel.libraries[name] == installed.hash_of(name)
    assert "fbgemm_gpu/fbgemm.so" in record.kernel.libraries, "loaded because another needs it"
