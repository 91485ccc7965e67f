"""A launch's output as lines: whole, bounded, in linear time, and left at a deadline whatever comes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness import wall
from harness.run import log
from harness.run.log import Allowance, follow


def cut(pieces: Iterable[bytes], allowance: Allowance | None = None) -> list[str]:
    lines = (allowance or Allowance()).of_launch()
    return [line for piece in pieces for line in lines.feed(piece)] + list(lines.end())


def followed(
    stream: Iterable[bytes], seconds: float, on_tick: Callable[[], bool] = lambda: False
) -> tuple[bool, list[str]]:
    seen: list[str] = []
    lines = Allowance().of_launch()
    return follow(stream, lines, seen.append, time.monotonic() + seconds, on_tick), seen


def test_lines_come_whole_whatever_the_pieces() -> None:
    pieces = [b"one\ntw", "o é".encode()[:-1], "é".encode()[-1:] + b"\r\n\n", b"bad \xff\nlast"]
    assert followed(pieces, 10) == (True, ["one", "two é", "", "bad \ufffd", "last"])


@given(some.binary(max_size=300), some.lists(some.integers(0, 300)))
def test_where_the_pieces_end_makes_no_difference(text: bytes, ends: list[int]) -> None:
    places = sorted({0, len(text), *(end for end in ends if end < len(text))})
    pieces = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert cut(pieces) == cut([text])


def test_a_line_without_an_end_is_cut_and_says_so() -> None:
    (line,) = cut([b"x" * 60_000] * 5)
    lost = 300_000 - log.MOST_LINE_BYTES
    assert line == "x" * log.MOST_LINE_BYTES + f" (and {lost} bytes more, which were not kept)"


def test_what_would_steer_a_terminal_does_not() -> None:
    assert cut([b"\x1b[2Jgone\x9b\tkept\n"]) == ["\ufffd[2Jgone\ufffd\tkept"]


def test_work_grows_with_the_bytes_and_not_with_their_square() -> None:
    """A line in ten thousand pieces is copied once and no further than it is kept."""

    class Counted(bytearray):
        added = 0

        def __iadd__(self, more: bytes) -> Counted:  # type: ignore[override,misc]
            Counted.added += len(more)
            self.extend(more)
            return self

    lines = Allowance().of_launch()
    lines._held = Counted()
    for _ in range(10_000):
        assert list(lines.feed(b"y" * 1000)) == []
    assert Counted.added == log.MOST_LINE_BYTES
    assert len(lines._held) == log.MOST_LINE_BYTES


@pytest.mark.parametrize("line", [b"\n", b"a line of some length, as programs write them\n"])
def test_a_log_without_an_end_is_cut_and_says_so(line: bytes) -> None:
    announced = wall.announce("the-last-cell")
    pieces = [line * 20_000] * 60 + [announced[:5].encode(), announced[5:].encode() + b"\n", line * 20_000]
    found = cut(pieces)
    assert sum(len(text) + 1 for text in found) < log.MOST_LAUNCH_BYTES + 2000
    assert len(found) <= log.MOST_LAUNCH_LINES + 3
    (said,) = (text for text in found if "was not kept" in text)
    assert "16 MiB or 200000 lines" in said
    assert found[-1] == announced, "what comes next is known all the same"


def test_all_launches_of_a_run_share_one_allowance() -> None:
    allowance = Allowance(100)
    assert cut([b"x" * 60 + b"\n"], allowance) == ["x" * 60]
    first, said = cut([b"y" * 60 + b"\nz\n"], allowance)
    assert first == "y" * 60
    most = log.MOST_RUN_BYTES // 2**20
    assert said == f"(The rest was not kept: the logs of its run are longer than {most} MiB.)"


def test_a_silent_stream_is_left_at_the_deadline() -> None:
    release = threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"begun\n"
        release.wait(30)

    assert followed(silent(), 0.2) == (False, ["begun"])
    assert not release.is_set()
    release.set()


@pytest.mark.parametrize("piece", [b"again\n", b"\n" * 65_536, b"x" * 65_536, b"::cell a\n" * 5000])
def test_a_chatty_stream_is_left_at_the_deadline(piece: bytes) -> None:
    def chatty() -> Iterator[bytes]:
        while True:
            yield piece

    ended, _ = followed(chatty(), 0.3)
    assert not ended


def test_whoever_follows_is_asked_now_and_then_whether_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "TICK_S", 0.01)
    asked: list[int] = []

    def chatty() -> Iterator[bytes]:
        while True:
            yield b"again\n"

    def enough() -> bool:
        asked.append(1)
        return len(asked) == 3

    ended, _ = followed(chatty(), 60, enough)
    assert ended
    assert len(asked) == 3


def test_a_writer_that_is_faster_than_its_reader_waits() -> None:
    made: list[int] = []

    def eager() -> Iterator[bytes]:
        for number in range(10_000):
            made.append(number)
            yield b"line\n"

    ahead: list[int] = []

    def slow(line: str) -> None:
        if len(ahead) < 50:
            time.sleep(0.001)  # the pace of this reader
            ahead.append(len(made))

    assert follow(eager(), Allowance().of_launch(), slow, time.monotonic() + 60)
    assert all(count <= number + log._CHUNKS + 3 for number, count in enumerate(ahead))


def test_a_stream_that_breaks_has_ended() -> None:
    def broken() -> Iterator[bytes]:
        yield b"begun\n"
        raise ConnectionError("gone")

    assert followed(broken(), 10) == (True, ["begun", "(the log broke off: gone)"])
