"""A process is known again as long as it lives, and never taken for another."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.run import owner


def test_a_process_that_lives_is_not_gone() -> None:
    assert not owner.is_gone(owner.mine())
    assert owner.mine() == owner.mine()


def test_a_process_that_ended_is_gone() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from harness.run import owner; print(owner.mine())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert owner.is_gone(said.stdout)


def test_who_is_gone_and_who_cannot_be_known() -> None:
    boot, namespace, pid, began = owner.mine().split()
    assert owner.is_gone(f"another-boot {namespace} {pid} {began}")
    assert owner.is_gone(f"{boot} {namespace} {pid} 1"), "the number was taken over"
    assert not owner.is_gone(f"{boot} pid:[7] {pid} {began}"), "numbers of another namespace say nothing here"
    assert not owner.is_gone(f"{boot} {namespace} 1 ?"), "it does not tell when it began"


@pytest.mark.parametrize("text", ["", "x", "a b c", "a b c d", "a b -1 d", "a b 99999999999999999999 d e"])
def test_what_is_no_owner_is_not_judged(text: str) -> None:
    assert not owner.is_gone(text)
