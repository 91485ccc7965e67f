"""What MkDocs makes the site of: the repository's pages where they stand, and every file that they lead to.

The site has the layout of a checkout, so that a link which works there works on the site, and the other way
round. `mkdocs.yml` names this file as a hook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "*.md",
    "docs/**/*.md",
    "embedding_kernels/*.md",
    "opt_designs/*.md",
    "opt_designs/*/*.md",
    "results/reference/*.md",
    "results/sent/*.md",
)
WORKER = "scripts/site/iframe-worker.js"
"""Named by `mkdocs.yml`."""
_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()[^)#\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The repository's files in place of those of MkDocs' one folder; the theme's stay."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    linked = {target for page in pages for target in _targets(page) if target.is_file()}
    for path in [*pages, ROOT / WORKER, *sorted(linked - {*pages})]:
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a folder leads to the page that describes it."""
    here = (ROOT / page.file.src_uri).parent

    def described(link: re.Match[str]) -> str:
        readme = here / link[0] / "README.md"
        return f"{link[0].rstrip('/')}/README.md" if _is_local(link[0]) and readme.is_file() else link[0]

    return _LINK.sub(described, markdown)


def _targets(page: Path) -> Iterator[Path]:
    """What a page leads to in the repository."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    for link in filter(_is_local, _LINK.findall(text)):
        target = (page.parent / link).resolve()
        if target.is_relative_to(ROOT):
            yield target


def _is_local(link: str) -> bool:
    return "://" not in link and not link.startswith("mailto:")
