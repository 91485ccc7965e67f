"""Text from outside: what nobody could see is spelt out, and everything else stays as it is."""

from __future__ import annotations

import re
from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.markdown import escaped
from harness.text import clean, exactly, first_hidden, shown


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain, groß, ряд, 行, 🙂", "plain, groß, ряд, 行, 🙂"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("non\u00a0breaking, \u3000wide", "non\u00a0breaking, \u3000wide"),
        ("क\u094d\u200dष", "क\u094d\u200dष"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[2J", "\\x1b[2J"),
        ("10 %\r20 %\r\n", "10 %\n20 %\n"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ufeffBOM", "\\ufeffBOM"),
        ("\ud800", "\\ud800"),
        ("\ufffe \U0001ffff \ufdd0", "\\ufffe \\U0001ffff \\ufdd0"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("a\u2028b", "a\\u2028b"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


@given(st.text(st.characters(codec=None)))
def test_clean_text_is_fit_for_xml_and_a_terminal(text: str) -> None:
    cleaned = clean(text)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]", cleaned
    )
    assert first_hidden(cleaned) == ""
    body = cleaned.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert minidom.parseString(f"<a>{body}</a>".encode()) is not None
    assert clean(cleaned) == cleaned


@given(st.recursive(st.integers() | st.text() | st.none(), lambda x: st.lists(x) | st.tuples(x)))
def test_a_value_is_shown_in_one_short_line(value: object) -> None:
    assert len(shown(value)) <= 100
    assert "\n" not in shown(value)


@given(st.text())
def test_blanks_of_a_text_shown_exactly_can_be_told(text: str) -> None:
    assert len(exactly(text)) <= 60
    assert not set("\n\t\r") & set(exactly(text))
    assert exactly("a  b ") == "a  b "
    assert exactly("a\tb\r\n") == r"a\tb\x0d\n"
    assert exactly("\x1b[31m5") == r"\x1b[31m5", "nor is a colour taken away"


def test_numbers_that_python_would_not_print_are_shown() -> None:
    assert shown(16**5000) == "a number of 20001 bits"
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert len(shown(nested)) < 20


def test_markdown_calls_nobody_and_links_nothing() -> None:
    assert escaped("@everyone, see #12 & <b>") == "@&#8203;everyone, see \\#&#8203;12 &amp; \\<b\\>"
    assert escaped("&lt;b&gt;") == "&amp;lt;b&amp;gt;"
    assert escaped("baseline@12.1") == "baseline@12.1"  # called so by nobody
