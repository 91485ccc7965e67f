"""README and docs say of the reference runs what their records say."""

from __future__ import annotations

import pytest

from tests import written_results
from tests.written_results import BLOCK, PAGES, ROOT, loaded


def blocks(page: str) -> list[str]:
    return [found[1] for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_the_records_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert written_results.written(text) == text, "run `make results` and read what has changed"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_found_and_holds_something(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("<!-- results: ") == text.count("<!-- end -->") == len(blocks(page)) > 0
    assert all(found[2].strip() for found in BLOCK.finditer(text))


def test_another_figure_is_seen() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    found = BLOCK.search(text)
    assert found is not None
    assert written_results.written(text.replace(found[2], found[2].replace("1", "7"), 1)) == text


@pytest.mark.parametrize("page", PAGES)
def test_what_stands_side_by_side_is_of_one_board(page: str) -> None:
    for block in blocks(page):
        _, *names = block.split()
        records = [record for name in names for record in loaded(name).whole.records]
        assert len({record.environment.gpu_uuid for record in records if record.environment}) <= 1, block
