"""How the paper measured its claims, and which of our figures is measured alike: a row of a table each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInputError
from harness.validation import FORBID_UNKNOWN, read_toml, validated

MATCHES_FILE = Path(__file__).with_name("paper.toml")


@dataclass(frozen=True)
class Match:
    """A claim, by its id in claims.toml, and what of ours to put beside it."""

    __pydantic_config__ = FORBID_UNKNOWN
    id: str
    measured: str
    """What the paper timed."""
    metric: str
    """Ours that times the same."""
    arm: str
    """Label of ours that is the same contestant, for example "l2p_optmt@12.1,oracle"."""
    against: str
    """Label of the arm that it is compared with; of a slowdown the arm itself."""
    differs: tuple[str, ...]
    """Why the two figures may differ all the same: a part of a sentence each, the weightiest first."""


@dataclass(frozen=True)
class _File:
    __pydantic_config__ = FORBID_UNKNOWN
    reasons: dict[str, str]
    claims: tuple[Match, ...]


def matches(path: Path = MATCHES_FILE) -> dict[str, Match]:
    """Every claim's match by the claim's id, in the file's order, reasons written out.

    BadInputError where the file does not fit, names a reason that it does not have, or a claim twice.
    """
    file = validated(_File, read_toml(path), path)
    found: dict[str, Match] = {}
    for claim in file.claims:
        if unknown := [key for key in claim.differs if key not in file.reasons]:
            raise BadInputError(f"{path}: claims: {claim.id}: differs: {unknown[0]!r} is none of [reasons].")
        if claim.id in found:
            raise BadInputError(f"{path}: claims: {claim.id} is there twice.")
        reasons = tuple(file.reasons[key] for key in claim.differs)
        found[claim.id] = Match(claim.id, claim.measured, claim.metric, claim.arm, claim.against, reasons)
    return found
