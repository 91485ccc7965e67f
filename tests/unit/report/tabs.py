"""A page in Chromium, with what went wrong on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

Scheme = Literal["light", "dark"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Opened:
    """A page on the screen, with what went wrong on the way there."""

    tab: Tab
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def unfold(tab: Tab, section: str) -> None:
    """Opens everything that is folded away in a section, and waits until its charts are drawn."""
    tab.evaluate(
        "id => document.querySelectorAll(`#${id} details`).forEach((one) => { one.open = true; })", section
    )
    tab.wait_for_selector("html[data-drawn=yes]", state="attached")


def opened(
    browser: Browser,
    path: Path,
    *,
    width: int = 1280,
    scheme: Scheme = "light",
    scripts: Sequence[str] = (),
) -> Opened:
    """The page once everything is drawn; `scripts` run before its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    context.set_default_timeout(120_000)  # of many tests at once a page may get little of the processor
    found = Opened(context.new_page())
    for script in scripts:
        found.tab.add_init_script(script)
    found.tab.on(
        "console", lambda m: found.troubles.append(m.text) if m.type in ("error", "warning") else None
    )
    found.tab.on("pageerror", lambda error: found.troubles.append(str(error)))
    found.tab.on("requestfailed", lambda request: found.troubles.append(f"failed: {request.url[:80]}"))
    found.tab.on("request", lambda request: found.requests.append(request.url[:80]))
    found.tab.goto(path.as_uri())
    found.tab.wait_for_selector("html[data-drawn=yes]", state="attached")
    return found
