"""The documentation's site: no link is broken, every page is in it, and it needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")  # one process, so that the site is built once
ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "mkdocs.yml",
    "scripts/site",
    "docs",
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "experiments",
    "embedding_kernels/README.md",
    "opt_designs/README.md",
    "opt_designs/*/LOG.md",
    "opt_designs/baseline",
    "results/*/README.md",
    "results/reference/nvidia-h100-80gb-hbm3/selftest/selftest.json",
)


def build(checkout: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=checkout,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


class Parts(HTMLParser):
    """What a page loads by itself, and what it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.loaded += [known[name] for name in ("src", "srcset") if name in known]
        if tag == "a":
            self.links.append(known.get("href", ""))
        elif "href" in known and known.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(known["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_of_the_documentation_is_in_it(site: Path) -> None:
    for path in (ROOT / "docs").glob("**/*.md"):
        name = path.relative_to(ROOT).with_suffix(".html")
        assert (site / (name.with_name("index.html") if path.stem == "README" else name)).is_file(), path
    report = "results/reference/report.html"
    assert (site / report).read_bytes() == (ROOT / report).read_bytes()
    overview = Parts((site / "index.html").read_text(encoding="utf-8"))
    assert report in overview.links


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = [path for path in site.glob("**/*.html") if path.name != "report.html"]
    assert len(pages) > 30
    for path in pages:
        loaded = Parts(path.read_text(encoding="utf-8")).loaded
        assert loaded
        assert [one for one in loaded if re.match(r"\w+:|//", one) and not one.startswith("data:")] == [], (
            path
        )
    for path in site.glob("**/*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for pattern in SOURCES:
        for path in ROOT.glob(pattern):
            target = checkout / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
    (checkout / "results/reference/report.html").write_text("<!doctype html><title>The page</title>")
    with (checkout / "docs/traces.md").open("a") as page:
        page.write("\n[nowhere](gone.md), [no such heading](models.md#gone)\n")
    done = build(checkout, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 2, done.stderr
    assert "'gone.md'" in done.stderr
    assert "#gone" in done.stderr


@pytest.mark.browser
def test_it_is_read_and_searched_from_disk(site: Path, browser: Browser) -> None:
    context = browser.new_context(offline=True)
    tab = context.new_page()
    requests: list[str] = []
    troubles: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    tab.goto((site / "index.html").as_uri())
    tab.locator("input.md-search__input").click()
    tab.locator("input.md-search__input").press_sequentially("NVRTC")
    tab.locator(".md-search-result__link[href$='/02-nvrtc.html']").click()
    tab.wait_for_url("**/docs/decisions/02-nvrtc.html")
    assert "NVRTC" in tab.locator("article").inner_text()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert troubles == []
    context.close()
