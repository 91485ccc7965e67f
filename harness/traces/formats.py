"""Reads traces from the formats that others keep them in."""

from __future__ import annotations

from harness.traces.text import read_text

__all__ = ["read_text"]
