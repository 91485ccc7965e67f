"""Each claim of the paper has one figure of ours that is measured alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import designs, experiment
from harness.analysis import claims, paper
from harness.build.toolchain import toolchains
from harness.errors import BadInputError


def test_every_claim_has_its_match_and_no_other() -> None:
    assert list(paper.matches()) == [claim.id for claim in claims.read().claims]


def test_what_is_put_beside_a_claim_is_measured_by_our_experiments() -> None:
    known, measured = designs.discover(), set()
    for name in ("paper", "kernels"):
        measured |= {arm.label for arm in experiment.read(experiment.find(name)).arms}
    for claim in claims.read().claims:
        match = paper.matches()[claim.id]
        assert {match.arm, match.against} <= measured
        design, _, rest = match.arm.partition("@")
        assert design in claim.designs
        assert design in known
        # The compiler of the paper's day, against its baseline.
        assert rest.split(",")[0] == match.against.partition("@")[2] == next(iter(toolchains())) == "12.1"
        assert match.metric in (claim.metrics or claims.METRICS)
        # A reader sees at once that it is another GPU; every reason is written out.
        assert "A100" in match.differs[0]
        assert all(len(reason.split()) > 3 for reason in match.differs)


FILE = """
[reasons]
gpu = "another GPU"
[[claims]]
id = "optmt"
measured = "kernel time"
metric = "kernel_us"
arm = "optmt@12.1"
against = "baseline@12.1"
differs = ["gpu"]
"""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('differs = ["gpu"]', 'differs = ["moon"]'), r"optmt: differs: 'moon' is none of \[reasons\]"),
        (("metric =", "metrik ="), r"claims\.0\.metric"),
        (("[reasons]", FILE[FILE.index("[[claims]]") :] + "[reasons]"), "optmt is there twice"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    path.write_text(FILE, encoding="utf-8")
    assert paper.matches(path)["optmt"].differs == ("another GPU",)
    path.write_text(FILE.replace(*change), encoding="utf-8")
    with pytest.raises(BadInputError, match=sentence):
        paper.matches(path)
