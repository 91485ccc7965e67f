"""What stands in more than one of the project's own files agrees."""

from __future__ import annotations

import configparser
import re
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import harness

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for place in (
        "*.md",
        "docs/**/*.md",
        "opt_designs/**/*.md",
        "results/reference/*.md",
        "results/sent/*.md",
    )
    for path in ROOT.glob(place)
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(text("pyproject.toml"))["project"]
    return found


def imported_as(requirements: list[str]) -> set[str]:
    """Top-level packages that these requirements install, without scripts' and private ones."""
    wanted = {re.split(r"[^\w-]", each)[0].lower().replace("_", "-") for each in requirements}
    return {
        package
        for package, owners in packages_distributions().items()
        if wanted & {owner.lower().replace("_", "-") for owner in owners} and package.isidentifier()
    }


def test_the_version_is_the_same_everywhere() -> None:
    assert project()["version"] == harness.__version__
    assert f"Version: {harness.__version__}\n" in text("docker/embedding_harness.dist-info/METADATA")
    assert re.search(rf"^## {re.escape(harness.__version__)}( |$)", text("CHANGELOG.md"), re.MULTILINE)


def test_changes_to_come_have_their_place() -> None:
    first = re.search(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == "Unreleased"


def test_the_container_may_import_nothing_that_only_the_host_depends_on() -> None:
    contracts = configparser.ConfigParser()
    contracts.read_string(text(".importlinter"))
    forbidden = contracts["importlinter:contract:container"]["forbidden_modules"].split()
    optional = project()["optional-dependencies"]
    on_the_host = imported_as(project()["dependencies"] + optional["parquet"])
    in_the_container = imported_as(optional["bench"])
    assert {"numpy", "pynvml", "torch"} <= in_the_container
    assert on_the_host - in_the_container <= set(forbidden)


def test_ci_runs_what_the_readme_says() -> None:
    workflow = text(".github/workflows/test.yml")
    for command in ("scripts/install-debian", "make setup", "make test"):
        assert re.search(rf"^{command}\b", text("README.md"), re.MULTILINE), command
        assert f"- run: {command}\n" in workflow, command
    assert "- run: make site\n" in workflow


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(text("README.md").split()) <= 1000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    outside_code = re.sub(r"^ *```.*?^ *```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", outside_code)
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\]\((\d\d-[\w-]+\.md)\)", text("docs/decisions/README.md"))
    there = sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert listed == there
    for number, name in enumerate(there, start=1):
        assert text(f"docs/decisions/{name}").startswith(f"# {number}. ")


@pytest.mark.parametrize(
    "name", [*PAGES, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("harness/cli/*.py"))]
)
def test_a_run_that_is_named_as_one_of_ours_ships(name: str) -> None:
    named = set(re.findall(r"(?<!results/)\breference/([a-z]\w*)", text(name)))
    assert named <= {path.parent.name for path in ROOT.glob("results/reference/*/*/plan.json")}


def test_records_are_as_large_as_the_page_on_scale_says() -> None:
    told = re.findall(r"^\| (\w+) \| ([\d,]+) \| \d+ % \|$", text("docs/scale.md"), re.MULTILINE)
    assert told
    for run, size in told:
        (packed,) = ROOT.glob(f"results/reference/*/{run}/cells.zip")
        with zipfile.ZipFile(packed) as files:
            records = [one.file_size for one in files.infolist() if one.filename.endswith("/record.json")]
        assert abs(sum(records) / len(records) - int(size.replace(",", ""))) < 1, run
