"""A kernel taken out of PyTorch's wheel, launched by the patch: with its own parameters, in its own order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.build import published
from harness.patch import manifest
from tests import synthetic_wheel as synthetic
from tests.unit.patch.fake_gpu import on_fake_cuda

CODE = """
patch.apply(folder)
for seed in range(40):
    case = random_case(seed, torch.float32, (torch.int32, torch.int64)[seed % 2])
    offsets = case.offsets
    if offsets is None:
        offsets = torch.arange(0, case.indices.numel(), case.indices.size(1), dtype=case.indices.dtype)
    output, offset2bag, bag_size, _ = run(
        (forward, forward_only)[seed % 3 == 0], case.table("cpu"), case.indices.reshape(-1), offsets,
        {"sum": 0, "mean": 1}[case.mode],
        None if case.sample_weights is None else case.sample_weights.reshape(-1),
        case.include_last_offset, -1 if case.padding_idx is None else case.padding_idx,
    )
    assert_right(output, case)
    assert offset2bag.tolist() == [bag for bag, rows in enumerate(case.bags) for _ in rows]
    kept = [sum(row != case.padding_idx for row in rows) for rows in case.bags]
    assert bag_size.tolist()[: len(kept)] == kept
assert (patch.calls()["design"], patch.calls()["stock"]) == (40, 0), patch.calls()
print(patch.calls()["kernel"], patch.calls()["arch"], events()[-1].split(" ", 1)[1])
"""


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    folder = published.take(synthetic.published(tmp_path / "torch.whl"))
    monkeypatch.undo()  # the operator stays in the cache that all tests share
    return folder


def test_it_computes_what_pytorch_asks_for(fake_cuda: Path, taken: Path) -> None:
    said = on_fake_cuda(fake_cuda, taken, CODE)
    assert said == f"{synthetic.symbol()} sm_90 grid 1024,1,1 block 32,8,1 stream 0x1000\n"


def test_a_parameter_that_the_patch_does_not_know_is_named(fake_cuda: Path, make_design: Any) -> None:
    code = """
for names in (["indices", "colour"], ["dim"] * 17):
    from harness.patch import manifest
    import dataclasses
    manifest.write(folder, dataclasses.replace(manifest.read(folder), parameters=names))
    try:
        patch.apply(folder)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""
    assert on_fake_cuda(fake_cuda, make_design(), code).splitlines() == [
        "The patch does not know the parameter 'colour' of the manifest.",
        "The manifest names 17 parameters; there are 16.",
    ]


def test_the_manifest_survives_reading(taken: Path) -> None:
    done = manifest.read(taken)
    assert done.parameters.index("padding_idx") == 14
