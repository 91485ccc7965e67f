"""Fuzzed packed runs, and fuzzed traffic that models are made of.

A packed run that somebody else made: the commands answer with figures or with a sentence, every record that
is believed is the one that was put in, and nothing outside the run's cells is written. Traffic: what is
accepted makes the model that a simple count of the same numbers makes.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import models
from harness.analysis import frame
from harness.errors import BadInputError
from harness.run import packing
from tests import synthetic_run as synthetic
from tests.hostile import nasty, simple_reader
from tests.hostile.program import counted, harness, hostile
from tests.hostile.test_inputs import ARMS, SMALL, ask, record

FOREIGN = [
    *(
        "cells/",
        "cells/a/",
        "cells/a",
        "../cells/a/record.json",
        "/tmp/record.json",
        "cells/../../x/record.json",
    ),
    *("cells/a/../b", "cells/.a/record.json", "cells\\a\\record.json", "cells//record.json", "cells/a/b/c"),
    *(
        "cells/a/record.json\0.txt",
        "cells/a b/record.json",
        "CELLS/a/record.json",
        "__MACOSX/cells/a/._record.json",
    ),
    *("cells/a/record.json", f"cells/{'a' * 300}/record.json", "cells/é/record.json", ""),
]
MODES = [0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A packed run, and beside it, unpacked, another."""
    root = tmp_path_factory.mktemp("runs")
    what = synthetic.experiment(arms=ARMS, datasets=("medium",), replicates=2, workload=SMALL)
    made = [synthetic.write_run(root / name, what, record) for name in ("packed", "other")]
    packing.pack(made[0])
    return made[0], made[1]


@hostile
@given(data=st.data())
def test_packed_runs(data: st.DataObject, runs: tuple[Path, Path], tmp_path: Path) -> None:
    with counted("packed run") as ended:
        run = tmp_path / "parent" / "run"
        shutil.rmtree(run.parent, ignore_errors=True)
        shutil.copytree(runs[0], run)
        archive = run / "cells.zip"
        spoil(data, archive)
        beside = data.draw(st.sampled_from([*[""] * 9, "cells", ".cells.unpacked", ".cells.packed"]))
        if beside:
            data.draw(st.sampled_from(nasty.NO_FILES))(run / beside)
        try:
            held = records_in(archive)
            for one in frame.load_run(run).records:
                if not one.message.startswith("Its record cannot be used"):
                    assert held[one.cell.id]["status"] == one.status
                    assert simple_reader.same(one.samples, held[one.cell.id]["samples"])
            ended["read"] += 1
        except BadInputError:
            ended["refused"] += 1
        ask(data, run, runs[1])
        before = {path for path in tmp_path.rglob("*") if run / "cells" not in (path, *path.parents)}
        answer = harness(data.draw(st.sampled_from(["unpack", "pack"])), str(run))
        after = {path for path in tmp_path.rglob("*") if run / "cells" not in (path, *path.parents)}
        assert {path.name for path in after - before} <= {".lock", ".lock.json"}
        assert answer.code or not (before - after - {archive, run / ".cells.packed", run / ".cells.unpacked"})
        assert archive in after or answer.code == 0 or archive not in before


def spoil(data: st.DataObject, path: Path) -> None:
    """Makes something else of the archive, or of something in it."""
    content, how = path.read_bytes(), data.draw(st.integers(0, 9))
    if how == 0:
        data.draw(st.sampled_from(nasty.NO_FILES))(path)
    elif how == 1:
        nasty.put(path, nasty.spoilt(content.decode("latin-1"), data.draw(st.integers(0, 2**32))))
    elif how < 4:
        # A number of the archive's own, in the list of members or at its end.
        spoilt, first = bytearray(content), content.index(b"PK\1\2")
        at = data.draw(st.integers(first, len(content) - 4))
        value = data.draw(st.sampled_from([0, 1, 2**16 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1))
        spoilt[at : at + 4] = struct.pack("<I", value)
        nasty.put(path, bytes(spoilt))
    elif how < 8:
        reword(data, path, content)
    else:
        add(data, path, content)


def add(data: st.DataObject, path: Path, content: bytes) -> None:
    """A member that does not belong there, or one of other contents."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        held = [(member.filename, old.read(member)) for member in old.infolist()]
    name = data.draw(st.sampled_from([*FOREIGN, *(name for name, _ in held)]) | nasty.texts)
    made = zipfile.ZipInfo(name[:1000] or "x")
    made.external_attr = (data.draw(st.sampled_from(MODES)) | 0o644) << 16
    made.compress_type = data.draw(st.sampled_from(METHODS))
    put = data.draw(st.sampled_from([b"", b"{}", b"[" * 10**5, bytes(2**27), b"\xff\xfe"]))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        warnings.simplefilter("ignore")  # names that stand twice
        for member, was in held:
            if member != name or data.draw(st.booleans()):
                new.writestr(member, was)
        new.writestr(made, put)


def reword(data: st.DataObject, path: Path, content: bytes) -> None:
    """Another record in place of one that was there, odd or damaged."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        held = {member: old.read(member) for member in old.namelist()}
    name = data.draw(st.sampled_from([name for name in held if name.endswith("/record.json")]))
    tree = json.loads(held[name])
    made = data.draw(nasty.reworded(tree) | nasty.changed(tree, nasty.json_values))
    with zipfile.ZipFile(path, "w", data.draw(st.sampled_from(METHODS[:2]))) as new:
        for member, was in held.items():
            new.writestr(member, json.dumps(made) if member == name else was)


def records_in(path: Path) -> dict[str, Any]:
    """Of an archive, by Python's own reader alone."""
    found = {}
    if not path.is_file() or path.is_symlink() or path.stat().st_size > 2**24:
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/record.json"):
                    try:
                        found[name.split("/")[1]] = simple_reader.read(
                            simple_reader.RECORD, archive.read(name)
                        )
                    except Exception:  # damaged, or no record: then nobody is to believe it
                        continue
    except Exception:
        return {}
    return found


whole = st.integers(-2, 40) | st.sampled_from([2**28, 2**31, 2**62, 2**63 - 1, -(2**63)])
few = st.lists(st.integers(0, 3), min_size=2, max_size=8)


@hostile
@given(data=st.data())
def test_traffic(data: st.DataObject, tmp_path: Path) -> None:
    with counted("traffic") as ended:
        path, out = tmp_path / "traffic.pt", tmp_path / "out.toml"
        out.unlink(missing_ok=True)
        lengths = data.draw(few) * 2
        values = data.draw(st.lists(st.integers(0, 40), min_size=sum(lengths), max_size=sum(lengths)))
        if data.draw(st.booleans()):
            spoilt = data.draw(st.sampled_from([lengths, values])) or lengths
            spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(whole)
        names = data.draw(st.just(["a", "b"]) | st.lists(nasty.texts, max_size=3))
        torch.save(saved(data, names, values, lengths), path)
        content = path.read_bytes()
        if data.draw(st.integers(0, 3)) == 0:
            nasty.put(path, nasty.spoilt(content.decode("latin-1"), data.draw(st.integers(0, 2**32))))
        answer = harness("trace", "model", str(path), str(out), "--dim", "8", "--skip-empty")
        assert not list(tmp_path.glob(".import*"))
        assert simple_reader.seen(answer.out + answer.err)
        if answer.code:
            assert not out.exists(), "nothing is left behind"
            ended["refused"] += 1
            return
        ended["accepted"] += 1
        if path.read_bytes() == content:
            assert min(*lengths, *values, 0) == 0
            made, bags = models.read(str(out)), len(lengths) // len(names)
            ends = [sum(lengths[: bags * number]) for number in range(len(names) + 1)]
            features = [values[begin:end] for begin, end in itertools.pairwise(ends)]
            rows = [group.rows for group in made.tables for _ in range(group.count)]
            assert sorted(rows) == sorted(max(one) + 1 for one in features if one)
            assert made.batch == bags
            assert made.example().all_lookups == len(values)


def saved(data: st.DataObject, names: list[str], values: list[int], lengths: list[int]) -> Any:
    """As one or the other of the forms that traffic is kept in."""
    kind = data.draw(st.sampled_from([torch.int64, torch.int64, torch.float32, torch.uint8]))
    own = torch.tensor(values, dtype=torch.int64).to(kind)
    bags = torch.tensor(lengths, dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(bags, 0)])
    how = data.draw(st.integers(0, 4))
    if how == 0 and names:
        return own, offsets, bags[: len(bags) // len(names) * len(names)].reshape(len(names), -1)
    told: dict[str, Any] = {"lengths": bags} if how < 3 else {"offsets": offsets}
    if how == 4:
        told[data.draw(st.sampled_from(["weights", "keys", "x", "lengths"]))] = data.draw(
            st.sampled_from([bags, own, None, 3, ["a", "b"], bags.expand(10**12, len(bags))])
        )
    return {"keys": names, "values": own} | told


MODEL: dict[str, Any] = {
    **{"title": "a model", "source": "nowhere", "batch": 16},
    "tables": [
        {"rows": 100, "dim": 8, "bags": "counted", "counts": "1:5, 7:2", "coverage": 0.5, "hottest": [0.1]},
        {"rows": 50, "dim": 8, "pooling": 3, "zipf_s": 1.1, "zipf_q": 2.0},
    ],
}
counts = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=9).map(
    lambda pairs: ",".join(f"{length}:{bags}" for length, bags in sorted(dict(pairs).items()))
) | st.sampled_from(
    [
        *("", "5:1,3:1", "1:1,", "1:1,2:1," * 5000, "1:999999999999999", f"{'9' * 400}:1", "²:1", "1:5;7:2"),
        *("268435457:1", "1:-1", "1:1.5", "01:1,1:1", "1 : 1", "1:1\n", "268435456:1"),
    ]
)


@hostile
@given(data=st.data())
def test_models_with_counted_bags(data: st.DataObject, tmp_path: Path) -> None:
    with counted("model's file") as ended:
        tree = json.loads(json.dumps(MODEL))
        if data.draw(st.booleans()):
            tree["tables"][0]["counts"] = data.draw(counts | nasty.texts)
        else:
            tree = data.draw(nasty.changed(tree, nasty.toml_values))
        path = tmp_path / "mine.toml"
        nasty.put(path, nasty.as_toml(tree).encode("utf-8", "replace"))
        answer = harness("models", str(path))
        assert simple_reader.seen(answer.out + answer.err)
        ended["refused" if answer.code else "accepted"] += 1
        if not answer.code:
            made = models.read(str(path))
            for group in made.tables:
                assert sum(group.lengths(made.batch)) == group.lookups(made.batch)
                assert min(group.lengths(made.batch)) >= 0
