"""Malicious code of a design: what runs in a container in place of the bench.

    python3 hostile_launch.py TRICK HOST ARGUMENTS_OF_THE_BENCH...

Each trick tries one way out of its folder, or to be believed, or never to end. HOST is what an attacker may
well know: a folder of the host's with `secret`, which nobody else may read, and `victim`, which nobody else
may write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness import wall
from harness.records import Cell, CellRecord, Check, Environment, KernelFacts, load, to_json, write_whole

TRICKS: dict[str, Callable[[Path], None]] = {}
HOST = Path(sys.argv[2] if __name__ == "__main__" else "/")
SECRET, VICTIM = HOST / "secret", HOST / "victim"
PLANTED = "PLANTED BY THE CONTAINER"
MIB = 2**20


def trick(function: Callable[[Path], None]) -> Callable[[Path], None]:
    TRICKS[function.__name__] = function
    return function


@functools.cache
def order() -> wall.Order:
    return wall.parse("hostile", None, sys.argv[3:])


def ids() -> list[str]:
    return order().ids


def record_of(cell_id: str) -> CellRecord:
    """A record that could have been measured."""
    cell = load(Cell, order().cells / wall.file_of(cell_id))
    environment = Environment(
        **dict.fromkeys((f.name for f in dataclasses.fields(Environment)), ""),  # type: ignore[arg-type]
    )
    numbers = dict.fromkeys(
        ("multiprocessors", "l2_bytes", "memory_bytes", "persisting_l2_bytes", "other_processes"), 0
    )
    flags = dict.fromkeys(("mig", "git_dirty", "mps", "display"), False)
    environment = dataclasses.replace(environment, device="cpu", runner="docker", **numbers, **flags)  # type: ignore[arg-type]
    return CellRecord(
        cell,
        "ok",
        samples={"kernel_us": [1.0] * 10 * cell.workload.tables, "stage_us": [2.0] * 10},
        check=Check(True, 0.1, "", 1),
        kernel=KernelFacts("pytorch", "", "PyTorch", "cpu", 0, 0, 0, 0.0, ""),
        environment=environment,
    )


def leave(out: Path, record: CellRecord, name: str = "") -> None:
    write_whole(out / wall.file_of(name or record.cell.id), to_json(record))


def raw(out: Path, content: bytes) -> None:
    for cell_id in ids():
        (out / wall.file_of(cell_id)).write_bytes(content)


def announce_all() -> None:
    for cell_id in ids():
        print(wall.announce(cell_id), flush=True)


# Out of its folder.


@trick
def logs_are_links(out: Path) -> None:
    for name in ("log.txt", "record.json", "attempt.json", *(f"{i}.log" for i in ids())):
        (out / name).symlink_to(VICTIM)
    announce_all()
    print(PLANTED)


@trick
def records_are_links_to_a_secret(out: Path) -> None:
    for cell_id in ids():
        (out / wall.file_of(cell_id)).symlink_to(SECRET)


@trick
def records_are_links_up(out: Path) -> None:
    for cell_id in ids():
        (out / wall.file_of(cell_id)).symlink_to(f"../../../cells/{cell_id}/cell.json")


@trick
def parts_are_planted(out: Path) -> None:
    for cell_id in ids():
        for number in range(100):
            (out / f".{cell_id}.json.{number}.part").symlink_to(VICTIM)
        (out / wall.file_of(cell_id)).symlink_to(VICTIM)


@trick
def everything_is_written(out: Path) -> None:
    for place in ("/", "/launch", "/launch/cells", "/launch/traces", "/opt/harness", "/etc", str(HOST)):
        try:
            Path(place, "planted").write_text(PLANTED)
            print(f"ESCAPED: wrote {place}")
        except OSError:
            pass
    for cell_id in ids():
        for name in (f"/launch/cells/{cell_id}.json", f"/launch/cells/{cell_id}"):
            for harm in (
                os.unlink,
                os.rmdir,
                lambda path: os.rename(path, "/tmp/x"),
                lambda p: os.chmod(p, 0o777),
            ):
                try:
                    harm(name)
                    print(f"ESCAPED: changed {name}")
                except OSError:
                    pass


@trick
def the_folder_itself_is_replaced(out: Path) -> None:
    for harm in (
        lambda: os.rmdir(out),
        lambda: os.rename(out, "/launch/moved"),
        lambda: os.symlink(HOST, "/launch/new"),
        lambda: os.link("/launch/cells/" + wall.file_of(ids()[0]), out / "second-name"),
        lambda: os.mknod(out / "disk", 0o660 | 0o060000, os.makedev(254, 0)),
        lambda: os.chroot("/tmp"),
        lambda: os.setuid(0),
        lambda: os.chown(out, 0, 0),
        lambda: os.unshare(0x10000000 | 0x00020000) if hasattr(os, "unshare") else os.setuid(0),
        lambda: subprocess.run(["mount", "--bind", "/", str(out)], check=True, capture_output=True),
    ):
        try:
            harm()
            print("ESCAPED: something that must not be possible was")
        except (OSError, subprocess.CalledProcessError):
            pass


@trick
def a_shell_with_anothers_rights(out: Path) -> None:
    data = Path("/bin/sh").read_bytes()
    for name in ("sh", *(wall.file_of(cell_id) for cell_id in ids())):
        (out / name).write_bytes(data)
        (out / name).chmod(0o6777)


@trick
def more_than_its_own_is_read(out: Path) -> None:
    seen = sorted(str(p) for place in ("/launch", "/proc/self/root/launch") for p in Path(place).rglob("*"))
    print("SEEN " + json.dumps([p for p in seen if not any(own in p for own in ids())]))
    for path in (SECRET, Path("/proc/1/root") / str(SECRET).lstrip("/"), Path("/var/run/docker.sock")):
        with contextlib.suppress(OSError):
            print("ESCAPED: " + path.read_text())


@trick
def somebody_is_called(out: Path) -> None:
    for address in (("1.1.1.1", 53), ("172.17.0.1", 2375), ("169.254.169.254", 80)):
        try:
            socket.create_connection(address, timeout=1).close()
            print(f"ESCAPED: reached {address[0]}")
        except OSError:
            pass


# To be believed.


@trick
def a_rivals_records(out: Path) -> None:
    """Its rivals' records, worse than they are, under their names and its own."""
    for cell_id in ids():
        own = record_of(cell_id)
        rival = dataclasses.replace(
            own.cell, design="baseline", toolchain="12.1", id=cell_id.replace("stock", "baseline-12.1")
        )
        slow = {name: [9e9] * len(values) for name, values in own.samples.items()}
        forged = dataclasses.replace(own, cell=rival, samples=slow)
        leave(out, forged)
        leave(out, forged, cell_id)


@trick
def designs_that_nobody_planned(out: Path) -> None:
    for cell_id in ids():
        own = record_of(cell_id)
        work = dataclasses.replace(own.cell.workload, rows=10)
        leave(out, dataclasses.replace(own, cell=dataclasses.replace(own.cell, id="new", design="new")))
        leave(
            out, dataclasses.replace(own, cell=dataclasses.replace(own.cell, workload=work, seed=9)), cell_id
        )


@trick
def other_provenance(out: Path) -> None:
    """Good otherwise, so this counts; but not with the image and commit that it makes up."""
    for cell_id in ids():
        own = record_of(cell_id)
        assert own.environment is not None
        lies = dataclasses.replace(
            own.environment, image=PLANTED, git_commit=PLANTED, hostname=PLANTED, runner=PLANTED
        )
        leave(out, dataclasses.replace(own, environment=lies))


@trick
def text_that_steers_terminals(out: Path) -> None:
    announce_all()
    print("\x1b[2J\x1b]0;" + PLANTED + "\x07", flush=True)
    for cell_id in ids():
        leave(out, CellRecord(record_of(cell_id).cell, "failed", "\x1b[2J" * 10_000, "\x9b31m" * 100_000))


# Files that are none.


@trick
def pipes(out: Path) -> None:
    for cell_id in ids():
        os.mkfifo(out / wall.file_of(cell_id))


@trick
def sockets(out: Path) -> None:
    os.chdir(out)
    for number, cell_id in enumerate(ids()):
        made = socket.socket(socket.AF_UNIX)
        made.bind(f"s{number}")
        os.rename(f"s{number}", wall.file_of(cell_id))


@trick
def devices_behind_links(out: Path) -> None:
    for cell_id, device in zip(ids(), ("/dev/zero", "/dev/tty"), strict=True):
        (out / wall.file_of(cell_id)).symlink_to(device)


@trick
def folders(out: Path) -> None:
    for cell_id in ids():
        (out / wall.file_of(cell_id)).mkdir()


@trick
def folders_without_an_end(out: Path) -> None:
    os.chdir(out)
    for _ in range(20_000):
        os.mkdir("d")
        os.chdir("d")
    Path("x").touch()


@trick
def a_shut_folder(out: Path) -> None:
    for cell_id in ids():
        leave(out, record_of(cell_id))
        (out / wall.file_of(cell_id)).chmod(0)
    out.chmod(0)


@trick
def names_of_all_kinds(out: Path) -> None:
    for name in (b"\n", b"\xff\xfe", b"-rf", b"..%2f", b"\x1b[2J", b"a" * 255, b" ", "\u202e".encode()):
        (out / os.fsdecode(name)).write_bytes(b"x")


@trick
def sparse_files(out: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for cell_id in ids():
        with (out / wall.file_of(cell_id)).open("wb") as file:
            for size in (64 * 2**30, 2**30):
                try:
                    file.truncate(size)
                    break
                except OSError:
                    continue


@trick
def json_of_all_kinds(out: Path) -> None:
    first, second = ids()
    (out / wall.file_of(first)).write_bytes(b"[" * 100_000)
    (out / wall.file_of(second)).write_bytes(b'{"cell":' + b"9" * 1_000_000 + b"}")


@trick
def numbers_that_are_none(out: Path) -> None:
    first, second = ids()
    text = to_json(record_of(first)).replace("2.0", "1e999")
    (out / wall.file_of(first)).write_text(text)
    (out / wall.file_of(second)).write_text(to_json(record_of(second)).replace("2.0", "NaN"))


@trick
def half_characters(out: Path) -> None:
    for cell_id in ids():
        text = to_json(record_of(cell_id)).replace('"message": ""', '"message": "\\ud800"')
        (out / wall.file_of(cell_id)).write_text(text)


@trick
def a_newer_version(out: Path) -> None:
    for cell_id in ids():
        text = to_json(record_of(cell_id)).replace('"schema_version": 1', '"schema_version": 99')
        (out / wall.file_of(cell_id)).write_text(text)


@trick
def a_record_that_keeps_changing(out: Path) -> None:
    """A child goes on swapping the record for a link until the container is gone."""
    if os.fork():
        time.sleep(1)
        return
    path = out / wall.file_of(ids()[0])
    while True:
        leave(out, record_of(ids()[0]))
        (out / "link").symlink_to(SECRET)
        os.replace(out / "link", path)


# Too much, and no end.


@trick
def a_line_without_an_end(out: Path) -> None:
    for _ in range(200):
        os.write(1, b"x" * MIB)


@trick
def lines_without_an_end(out: Path) -> None:
    for _ in range(200):
        os.write(1, b"\n" * MIB)


@trick
def announcements_without_an_end(out: Path) -> None:
    line = f"{wall.announce(ids()[0])}\n{wall.announce(ids()[1])}\n{wall.announce('unplanned')}\n".encode()
    for _ in range(50):
        os.write(1, line * (MIB // len(line)))


@trick
def files_without_an_end(out: Path) -> None:
    for number in range(10**7):
        (out / f"{number}").touch()


@trick
def bytes_without_an_end(out: Path) -> None:
    for number in range(10**4):
        with (out / f"{number}").open("wb") as file:
            for _ in range(100):
                file.write(os.urandom(MIB))


@trick
def it_goes_on_without_a_log(out: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    while True:
        time.sleep(1000)


@trick
def it_goes_on_with_children(out: Path) -> None:
    for _ in range(20):
        if not os.fork():
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
            time.sleep(10**6)
    print("the parent ends", flush=True)


@trick
def processes_without_an_end(out: Path) -> None:
    children = 0
    try:
        while True:
            if not os.fork():
                time.sleep(10**6)
            children += 1
    except OSError:
        print(f"{children} processes, and no more")


@trick
def everybody_is_killed(out: Path) -> None:
    if not os.fork():
        os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    print("and the first of them is deaf", flush=True)


@trick
def nothing_but_a_good_record(out: Path) -> None:
    announce_all()
    for cell_id in ids():
        leave(out, record_of(cell_id))


if __name__ == "__main__":
    print(f"trick: {sys.argv[1]}", flush=True)
    TRICKS[sys.argv[1]](order().output)
