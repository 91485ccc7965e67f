"""Each claim of the paper has one figure of ours that is measured alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import designs, experiment
from harness.analysis import claims, frame, paper, results
from harness.analysis.analyse import analyse
from harness.build.toolchain import toolchains
from harness.errors import BadInputError
from harness.records import Variant
from harness.report.sections import claims as section
from tests import synthetic_run as synthetic


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


def test_a_report_has_one_row_per_claim_from_a_run_that_has_what_it_needs(tmp_path: Path) -> None:
    oracle = Variant("combined", "12.1", hot_rows="oracle")
    arms = (*synthetic.experiment().arms, oracle)
    few = synthetic.experiment(datasets=("random",))
    every = synthetic.experiment(arms=arms, reference="rpf_optmt@12.1")
    runs = [
        synthetic.write_run(tmp_path / "few", few),
        synthetic.write_run(tmp_path / "every", every),
        synthetic.write_run(tmp_path / "cpu", synthetic.experiment(workload=synthetic.CPU)),
    ]
    report = analyse(runs)
    assert report.claims is not None
    rows = {row.claim: row for row in report.claims.rows}
    assert list(rows) == [claim.id for claim in claims.read().claims]
    measured = results.measure(frame.load_run(tmp_path / "every", "every"))
    for claim in ("optmt", "prefetching", "combined"):
        ours = rows[claim].ours
        assert ours is not None
        assert (ours.run, ours.metric, ours.variant.label) == ("every", "kernel_us", rows[claim].arm)
        baseline, arm = (
            measured.at(variant, ours.dataset, "kernel_us")
            for variant in (Variant("baseline", "12.1"), ours.variant)
        )
        assert baseline is not None
        assert arm is not None
        # Over the baseline, whatever the run's own reference is; the largest of all datasets.
        assert ours.ratio.value == pytest.approx(baseline.time.value / arm.time.value)
        assert ours.ratio.value == max(ours.others.values())
    assert rows["locality"].ours is not None
    assert rows["locality"].ours.dataset == "random ÷ one_item"
    assert [claim for claim, row in rows.items() if row.ours is None] == ["l2p", "end_to_end"]


def test_the_page_says_what_the_paper_does_what_we_do_and_why_they_may_differ(tmp_path: Path) -> None:
    report = analyse([synthetic.write_run(tmp_path / "run", synthetic.experiment())])
    assert report.claims is not None
    table = section.rows(report, report.claims)
    found = {row[0].text: row for row in table.rows}
    assert len(found) == len(claims.read().claims)
    optmt = found["OptMT: more resident warps by a register cap"]
    assert (optmt[1].text, optmt[1].detail) == ("1.53×", "up to 53 % gain")
    assert "optmt@12.1, kernel alone" in optmt[2].detail
    assert optmt[3].text == "the paper caps the registers of every kernel of PyTorch, we those of the lookup"
    assert "Why all may differ: another GPU: the paper's is an A100; another compiler" in table.caption
    l2p = found["L2 pinning alone"]
    assert (l2p[2].text, l2p[2].detail) == (
        "not measured here",
        "needs l2p_optmt@12.1,oracle and baseline@12.1 by kernel alone",
    )


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
