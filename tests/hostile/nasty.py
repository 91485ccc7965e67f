"""Generators: values, texts and files as nobody should write them, and trees with one of them somewhere."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import strategies as st

Tree = Any
"""Nested dicts and lists, as JSON and TOML have them."""
_SIGNS = (
    "\x00\x07\x08\x0c\x1b\r\n\t\x7f\x9b\u200b\u200f\u202e\u2028\u2066\ufeff\ufffe\U0001ffff\U000e0041"
    "|`*_#@&<>\"'\\/=+-[]{}"
)
texts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            ".",
            "..",
            "../../x",
            "/etc/passwd",
            "\x1b[31mred\x1b[0m\x1b]0;t\x07",
            "\u202egpj.exe",
            "\ufeffbom",
            "\x00",
            "@everyone",
            "[/x].txt",
            "[bold]b[/bold]",
            "<script>alert(1)</script>",
            "</script><!--",
            "a b; }",
            "=1+1",
            "{{ 7 * 7 }}",
            "%s%n",
            "x" * 300,
            "x\n" * 20,
            "1",
            "nan",
        ]
    ),
    st.text(st.sampled_from(_SIGNS + "ab1 ×é行🙂"), max_size=30),
    st.text(max_size=20),
)
surrogates = st.sampled_from(["\ud800", "a\udfff", "\udcff.txt"])
numbers = st.sampled_from(
    [
        -1,
        0,
        1,
        -5,
        2**31 - 1,
        2**31,
        2**63 - 1,
        2**63,
        -(2**63) - 1,
        10**30,
        10**400,
        0.5,
        -0.0,
        -1.5,
        5e-324,
        1e-9,
        1e18,
        1.5e308,
        float("nan"),
        float("inf"),
        float("-inf"),
    ]
) | st.integers(-3, 300)
values = st.one_of(
    numbers,
    texts,
    st.booleans(),
    st.lists(numbers | texts, max_size=3),
    st.dictionaries(texts, numbers, max_size=2),
    st.builds(lambda: [[[[[]]]]]),
)
json_values = values | surrogates | st.none()
toml_values = values | st.sampled_from(
    [datetime.date(2020, 1, 1), datetime.time(1, 2), datetime.datetime(2020, 1, 1)]
)


def places(tree: Tree) -> Iterator[tuple[Tree, Any]]:
    """Every container in the tree, with each of its keys or indices."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


@st.composite
def changed(draw: st.DrawFn, tree: Tree, strange: st.SearchStrategy[Any]) -> Tree:
    """A copy of a tree with something wrong in one place, at times in three."""
    made = json.loads(json.dumps(tree))
    for _ in range(draw(st.sampled_from([1, 1, 1, 3]))):
        every = list(places(made))
        if not every:
            break
        container, key = draw(st.sampled_from(every))
        how = draw(st.integers(0, 9))
        if how == 0:
            del container[key]
        elif how == 1 and isinstance(container, dict):
            container[draw(texts)] = draw(strange)
        elif how == 2 and isinstance(container, list):
            container.append(container[key])
        elif how == 3:
            container[key] = [container[key]]
        elif how == 4 and isinstance(container[key], int | float):
            container[key] = draw(
                st.sampled_from([-container[key], container[key] * 1e9, str(container[key])])
            )
        elif how == 5 and isinstance(container[key], int):
            container[key] = float(container[key])
        elif how == 6 and isinstance(container[key], int):
            container[key] = draw(st.integers(0, 8))
        else:
            container[key] = draw(strange)
    return made


@st.composite
def mild(draw: st.DrawFn, tree: Tree) -> Tree:
    """A copy of a tree with other values of the same kinds, or without some: much of it is to be accepted."""
    made = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(list(places(made))))
        value = container[key]
        if isinstance(value, bool):
            container[key] = not value
        elif isinstance(value, int):
            container[key] = draw(st.integers(0, 9) | st.sampled_from([16, 64, 100]))
        elif isinstance(value, str) and key in ("title", "summary", "paper"):
            container[key] = draw(st.text(st.sampled_from("ab1 ×é行🙂|`*<>&@[]{}=\n\t\"'\\\\"), max_size=30))
        elif draw(st.booleans()):
            del container[key]
    return made


@st.composite
def reworded(draw: st.DrawFn, tree: Tree) -> Tree:
    """A copy of a record that says something else where it may: odd, but nothing to be refused."""
    made = json.loads(json.dumps(tree))
    every = [(c, k) for c, k in places({n: v for n, v in made.items() if n not in ("cell", "status")})]
    inner = [(container, key) for container, key in every if container[key] is not None]
    for container, key in draw(st.lists(st.sampled_from(inner), max_size=4)):
        if isinstance(container[key], str):
            container[key] = draw(texts)
        elif isinstance(container[key], float):
            container[key] = draw(st.sampled_from([0.001, 1, 7.25, 1e-3, 1e12, container[key]]))
    for name in draw(
        st.lists(st.sampled_from(["log_tail", "facts", "gpu", "message", "ceilings"]), max_size=2)
    ):
        made.pop(name, None)
    names = draw(st.permutations(list(made)))
    return {name: made[name] for name in names}


def spoilt(text: str, seed: int) -> bytes:
    """A text with one accident: cut, a byte lost or changed, something in between, twice, without an end."""
    chance = random.Random(seed)
    content = text.encode("utf-8", "surrogatepass")
    at = chance.randrange(len(content) + 1)
    accidents: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + content[at + 1 :],
        lambda: content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + b"[" * 100_000 + content[at:],
        lambda: content[:at] + b"9" * 5000 + content[at:],
        lambda: content[:at] + content,
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: b"",
        lambda: b"\0" * 100,
        lambda: re.sub(rb"[0-9]+", b"NaN", content, count=1 + chance.randrange(3)),
        lambda: b'{"a":' * 2000 + content,
        lambda: b"a." * 30_000 + b"a = 1\n" + content,
    ]
    return chance.choice(accidents)()


def as_toml(tree: Tree) -> str:
    """The tree as TOML; text of no use where it cannot be that, as with a lone surrogate."""
    try:
        return tomli_w.dumps(tree)
    except (TypeError, ValueError, AttributeError):
        return "x = "


def put(path: Path, content: bytes) -> None:
    """Writes a file in place of whatever was there."""
    remove(path)
    path.write_bytes(content)


def remove(path: Path) -> None:
    """Takes away a file, a link, a pipe or an empty folder."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def a_folder(path: Path) -> None:
    """An empty folder in the file's place; and so on."""
    remove(path)
    path.mkdir()


def a_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def zeros(path: Path) -> None:
    remove(path)
    path.symlink_to("/dev/zero")


def nowhere(path: Path) -> None:
    remove(path)
    path.symlink_to("/no/such/file")


def sparse(path: Path) -> None:
    remove(path)
    path.touch()
    os.truncate(path, 64 * 2**30)


NO_FILES = (a_folder, a_pipe, zeros, nowhere, sparse, remove)
