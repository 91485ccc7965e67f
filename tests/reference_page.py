"""The page of the runs that ship, and its picture in README: `make reference-page`.

The page is what `harness report reference` shows. The picture is the first screen of the widest comparison
alone. Needs Chromium.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.cli.shared import REFERENCE_DIR, analysed, run_folders
from harness.report import page
from tests.unit.report.tabs import FLAGS, opened
from tests.written.runs import Place

PAGE = REFERENCE_DIR / "report.html"
PICTURE = REFERENCE_DIR.parents[1] / "docs" / "report.png"
PICTURED = ("kernels", "peers")
"""The first of these that is there."""
WIDTH, HEIGHT = 1280, 760


def main() -> None:
    """Writes both."""
    print(page.write(analysed(run_folders(Path("reference"))), PAGE))
    print(picture(Place().run(*PICTURED), PICTURE))


def picture(run: Path, out: Path) -> Path:
    """The first screen of a run's page."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        made = page.write(analysed([run]), Path(folder) / "report.html")
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        tab = opened(browser, made, width=WIDTH).tab
        tab.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        tab.screenshot(path=out)
        browser.close()
    return out


if __name__ == "__main__":
    main()
