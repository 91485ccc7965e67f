"""What tests of imports share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInputError
from harness.traces.formats import import_trace


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the import goes; its folder holds nothing else."""
    return tmp_path / "out" / "trace"


@pytest.fixture
def refused() -> Callable[..., None]:
    """Checks that an import fails with this text and the source's name, and leaves nothing."""

    def check(source: Path, out: Path, said: str, kind: type[Exception] = BadInputError, **more: Any) -> None:
        with pytest.raises(kind, match=re.escape(said)) as caught:
            import_trace(source, out, **{"rows": 10, **more})
        assert "\n" not in str(caught.value)
        if kind is BadInputError:
            assert str(source) in str(caught.value)
        assert not out.parent.exists() or list(out.parent.iterdir()) == []

    return check
