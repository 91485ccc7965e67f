"""Eager, torch.compile, torch.export, AOTInductor, TorchScript on a real GPU: what answers a lookup in each.

Each program is a process of its own: a package may end it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import patch

pytestmark = pytest.mark.gpu

PROGRAM = """
import io, json, sys, tempfile, torch, warnings
from pathlib import Path
warnings.simplefilter("ignore")
design, root, way = sys.argv[1:]
sys.path.insert(0, root)
from harness import patch
if design:
    patch.apply(Path(design))
rows = torch.arange(40 * 64.0).reshape(40, 64) % 251
indices, offsets = torch.tensor([1, 2, 3, 39, 0, 0]), torch.tensor([0, 2, 2, 5])

class Bags(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(40, 64, mode="sum", _weight=rows.cuda())
        self.head = torch.nn.Linear(64, 3, device="cuda")
    def forward(self, indices, offsets):
        pooled = self.bag(indices, offsets)
        return torch.cat([pooled, self.head(pooled)], dim=1)

class AllTables(torch.nn.Module):
    def __init__(self):
        super().__init__()
        table = rows.cuda()
        self.floats = patch.EmbeddingBags([table, table])
        self.eight = self.floats.quantise("int8")
    def forward(self, indices, offsets):
        return torch.cat([self.floats(indices, offsets), self.eight(indices, offsets).float()], dim=1)

def saved(module, save, load):
    file = io.BytesIO()
    save(module, file)
    file.seek(0)
    return load(file)

def packaged(program):
    path = torch._inductor.aoti_compile_and_package(program, package_path=tempfile.mktemp(suffix=".pt2"))
    return torch._inductor.aoti_load_package(path)

model = (AllTables() if MODEL == "EmbeddingBags" else Bags()).eval()
if MODEL == "EmbeddingBags":
    offsets = torch.tensor([0, 2, 2, 5, 6])
given = indices.cuda(), offsets.cuda()
with torch.no_grad():
    wanted = model(*given).cpu()
    export = lambda: torch.export.export(model, given)
    made = {
        "eager": lambda: model,
        "compile": lambda: torch.compile(model, fullgraph=True, dynamic=True),
        "cpp_wrapper": lambda: torch.compile(model, options={"cpp_wrapper": True}),
        "cuda_graphs": lambda: torch.compile(model, mode="reduce-overhead", fullgraph=True),
        "export": lambda: saved(export(), torch.export.save, torch.export.load).module(),
        "package": lambda: packaged(export()),
        "package by dispatcher": lambda: packaged(patch.by_dispatcher(export())),
        "trace": lambda: saved(torch.jit.trace(model, given), torch.jit.save, torch.jit.load),
        "script": lambda: saved(torch.jit.script(model), torch.jit.save, torch.jit.load),
    }[way]()
    made(*given)
    before = patch.calls()
    got = made(*given).cpu()
    torch.cuda.synchronize()
    after = patch.calls()
torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)
if MODEL != "EmbeddingBags":
    bags = torch.stack([rows[1] + rows[2], rows[0] * 0, rows[3] + rows[39] + rows[0], rows[0]])
    torch.testing.assert_close(got[:, :64], bags)
print(json.dumps({"design": after["design"] - before["design"], "stock": after["stock"] - before["stock"]}))
"""
PACKAGE_OF_ITS_OWN = """
import tempfile, torch
model, given = torch.nn.Linear(8, 8, device="cuda"), (torch.ones(2, 8, device="cuda"),)
with torch.no_grad():
    program = torch.export.export(model, given)
    path = torch._inductor.aoti_compile_and_package(program, package_path=tempfile.mktemp(suffix=".pt2"))
    torch._inductor.aoti_load_package(path)(*given)
"""
"""Nothing of ours: on machines whose C++ library and PyTorch's disagree it ends by signal 11."""
ROOT = Path(patch.__file__).parents[2]
WITH = ["eager", "compile", "export", "package by dispatcher", "trace", "script"]
"""Where EmbeddingBag comes to the patch."""
WITHOUT = ["package", "cpp_wrapper"]
"""Where PyTorch's own kernel is called by its name."""


Counts = Callable[[str, Path | None, str], dict[str, Any]]


@functools.cache
def own_package_ends_with() -> int:
    """Exit code of PyTorch alone, which packages a linear layer, loads and calls it."""
    command = [sys.executable, "-c", PACKAGE_OF_ITS_OWN]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture
def counted(tmp_path: Path) -> Counts:
    """How many lookups a design and PyTorch's own kernel answer in one call; fails where it is wrong."""

    def run(model: str, design: Path | None, way: str) -> dict[str, Any]:
        if "package" in way and own_package_ends_with() < 0:
            pytest.skip(
                f"PyTorch's own package of a linear layer ends by signal {-own_package_ends_with()} here"
            )
        program = tmp_path / "program.py"  # a file, for torch.jit.script reads it
        program.write_text(PROGRAM.replace("MODEL", repr(model)), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, str(program), "" if design is None else str(design), str(ROOT), way],
            # Several of these at once: each compiles in its own process, and not in one for every core.
            env={**os.environ, "HARNESS_DESIGN": "", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, (
            f"{model}, {way}: exit code {result.returncode}\n{result.stderr[-3000:]}"
        )
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return found

    return run


@pytest.mark.parametrize("way", [*WITH, *WITHOUT])
def test_pytorch_as_it_is_answers_right(counted: Counts, way: str) -> None:
    """Where this fails it is not the patch that is at fault."""
    assert counted("EmbeddingBag", None, way) == {"design": 0, "stock": 0}


@pytest.mark.parametrize("way", WITH)
def test_a_design_in_embedding_bags_place_answers(counted: Counts, any_compiled: Path, way: str) -> None:
    assert counted("EmbeddingBag", any_compiled, way) == {"design": 1, "stock": 0}


@pytest.mark.parametrize("way", WITHOUT)
def test_where_the_patch_is_passed_by_pytorch_answers_right(
    counted: Counts, any_compiled: Path, way: str
) -> None:
    assert counted("EmbeddingBag", any_compiled, way) == {"design": 0, "stock": 0}


@pytest.mark.parametrize("way", ["eager", "compile", "cpp_wrapper", "export", "package", "trace"])
def test_a_design_for_all_tables_answers(counted: Counts, all_tables: Path, way: str) -> None:
    assert counted("EmbeddingBags", all_tables, way) == {"design": 2, "stock": 0}


def test_embedding_bags_in_a_cuda_graph_of_torch_compile(counted: Counts, all_tables: Path) -> None:
    """Replayed, so that nobody may be asked; PyTorch's own kernel never is."""
    assert counted("EmbeddingBags", all_tables, "cuda_graphs")["stock"] == 0
