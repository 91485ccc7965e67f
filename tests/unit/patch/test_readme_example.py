"""The docs' example of all tables at once, as it stands there, on the CPU and with smaller tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.patch.quantise import QuantisationError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "patch.md"


def test_the_example_of_all_tables_runs(make_tables_design: Any, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = DOCS.read_text(encoding="utf-8").split("```python\n")[1:]
    (code,) = (block.partition("```")[0] for block in blocks if "EmbeddingBags" in block)
    for there, here in (
        ('"compiled/fused-13.0"', repr(str(make_tables_design()))),
        ("cuda", "cpu"),
        ("500_000, 20_000, 1_000", "50, 20, 10"),
        ("1_000,", "10,"),
        ("2048", "8"),
    ):
        assert there in code
        code = code.replace(there, here)
    names: dict[str, Any] = {}
    with torch.inference_mode():
        exec(code, names)
    assert names["pooled"].shape == (8, 3 * 128)
    assert names["pooled"].dtype == torch.float16
    assert capsys.readouterr().out.startswith(QuantisationError.__name__)
