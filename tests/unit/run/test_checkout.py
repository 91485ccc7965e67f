"""Which commit a run is of: that of the program's own sources, or none; never another repository's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.run.checkout import Commit, commit_of

NONE = Commit("", dirty=False)


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """A repository of one commit; its one source file."""
    source = folder / "part" / "source.py"
    source.parent.mkdir(parents=True)
    source.write_text(f"# of {folder.name}\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all")
    return source


@pytest.fixture(autouse=True)
def _no_repository_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_commit_and_changes_since(tmp_path: Path) -> None:
    source = repository(tmp_path)
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(source) == Commit(head, dirty=False)
    (tmp_path / "new").touch()
    assert commit_of(source) == Commit(head, dirty=True)


def test_a_record_that_is_being_written_is_no_change(tmp_path: Path) -> None:
    source = repository(tmp_path / "ours")
    head = git(tmp_path / "ours", "rev-parse", "HEAD")
    record = tmp_path / "ours" / "results [1]" / "GPU" / "record.json"
    record.parent.mkdir(parents=True)
    record.touch()
    assert commit_of(source) == Commit(head, dirty=True)
    assert commit_of(source, besides=record) == Commit(head, dirty=False)
    assert commit_of(source, besides=tmp_path / "elsewhere.json") == Commit(head, dirty=True)
    record.with_name("another").touch()
    assert commit_of(source, besides=record) == Commit(head, dirty=True)


def test_a_repository_told_to_git_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = repository(tmp_path / "ours")
    repository(tmp_path / "other")
    head = git(tmp_path / "ours", "rev-parse", "HEAD")
    assert head != git(tmp_path / "other", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert commit_of(ours) == Commit(head, dirty=False)


def test_sources_that_git_does_not_keep(tmp_path: Path) -> None:
    repository(tmp_path)
    (tmp_path / ".gitignore").write_text(".venv\n", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "ignores")
    installed = tmp_path / ".venv" / "source.py"
    installed.parent.mkdir()
    installed.touch()
    assert commit_of(installed) == NONE


def test_no_commit_yet_no_repository_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    source = tmp_path / "source.py"
    source.touch()
    assert commit_of(source) == NONE
    git(tmp_path, "init", "--quiet")
    assert commit_of(source) == NONE
    source = repository(tmp_path / "whole")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commit_of(source) == NONE
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    assert commit_of(source) != NONE
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(source) == NONE
