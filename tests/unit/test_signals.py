"""Signals end a run politely, and wait for what must not be left half done."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from harness.signals import as_interrupt, ended_behind, held_back


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_unwinds_as_ctrl_c_does(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), as_interrupt():
            send(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_interrupt(), held_back():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_wait_for_the_end_and_count_once() -> None:
    done: list[str] = []

    def work() -> None:
        with as_interrupt():
            with held_back():
                send(signal.SIGINT, signal.SIGTERM, signal.SIGINT)
                done.append("finished")
            done.append("never reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["finished"]


def test_behind_an_exception_they_have_nothing_to_add() -> None:
    def work() -> None:
        with held_back():
            send(signal.SIGTERM)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        work()


def test_further_ones_do_not_disturb_what_unwinds() -> None:
    """Ctrl-C, and Ctrl-C again while it cleans up."""
    cleaned: list[str] = []

    def work() -> None:
        with as_interrupt():
            try:
                send(signal.SIGINT)
            finally:
                with held_back():
                    send(signal.SIGINT, signal.SIGTERM)
                    cleaned.append("yes")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert cleaned == ["yes"]


def test_other_threads_are_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with as_interrupt(), held_back():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_child_is_ended_where_the_signal_comes_before_we_know_of_it(number: int) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(["sleep", "600"]))
        send(number)
        return begun[0]

    with pytest.raises(KeyboardInterrupt), as_interrupt(), ended_behind(start, subprocess.Popen.kill):
        pytest.fail("went on")
    assert begun[0].returncode == -signal.SIGKILL
