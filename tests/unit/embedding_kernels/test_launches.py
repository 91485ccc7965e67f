"""What is launched, and how, on a pretended GPU: host memory, and a driver that launches emulated kernels."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.build import instances
from harness.design_source import COMMON_DIR
from harness.designs import Design
from harness.emulator.compilation import compiled, symbol
from kernel_wheel import kernels
from tests import compiled_once
from tests.served_package import ek

TESTS = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import ctypes, sys, threading
sys.path[:0] = [sys.argv[1], {str(TESTS.parent)!r}]
import torch
driver = ctypes.CDLL(sys.argv[1] + "/libcuda.so.1", ctypes.RTLD_GLOBAL)
driver.fake_events.restype = ctypes.c_char_p
torch.ops.load_library(sys.argv[1] + "/device.so")
import embedding_kernels
assert embedding_kernels.__file__.startswith(sys.argv[1])
from embedding_kernels import _operators
from tests.served import assert_right, batch, expected, some_tables
from tests.served_package import ek
fake = torch.ops.fake_cuda

def events():
    return driver.fake_events().decode().splitlines()

def run(tables, bags, longest, modes="sum", weights=None, output=torch.float32, device=0, index=torch.int64,
        kernel="fused"):
    module = ek.EmbeddingTables(tables, modes=modes, output_dtype=output, kernel=kernel)
    indices, offsets = batch(tables, bags, longest, dtype=index)
    if weights is not None:
        weights = torch.rand(indices.numel())
    given = [module.storage, module.descriptors, indices, offsets]
    given = [fake.on_gpu(tensor, device) for tensor in given]
    extra = [None if weights is None else fake.on_gpu(weights, device), fake.on_gpu(module.faults, device)]
    found = _operators.lookup(*given, *extra, module._numbers.listed)
    assert_right(fake.on_cpu(found), expected(tables, indices, offsets, modes, weights), 8)
    return events()

def alike(count, dim=4, kind="float32"):
    return some_tables(*[(30, dim, kind)] * count)
"""


@pytest.fixture(scope="module")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package beside the pretended driver, with kernels that are names."""
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has a CUDA backend of its own")
    folder = tmp_path_factory.mktemp("fake_gpu")
    package = Path(ek.__file__).parent
    shutil.copytree(package, folder / "embedding_kernels", ignore=shutil.ignore_patterns("kernels", "csrc"))
    for name in kernels.DESIGNS:
        write_names(folder / "embedding_kernels" / "lib" / "kernels" / name, kernels.design(name))
    for built in pretended_driver().glob("*.so*"):
        shutil.copy(built, folder)
    return folder


def pretended_driver() -> Path:
    """The folder with the driver and the backend of a pretended GPU."""
    headers = Path(torch.__file__).resolve().parent / "include"
    includes = ["-isystem", str(headers), "-isystem", str(headers / "torch/csrc/api/include")]
    driver = [TESTS / f"data/{name}.cpp" for name in ("fake_cuda/driver", "fake_serving/pytorch")]
    backend = [TESTS / f"data/{name}.cpp" for name in ("fake_cuda/device", "fake_serving/strided")]

    def command(sources: list[Path], *options: str) -> list[str]:
        compiler = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC"]
        libraries = [f"-L{headers.parent / 'lib'}", "-lc10", "-ltorch_cpu"]
        return [*compiler, *map(str, sources), *options, *includes, *libraries]

    commands = {
        "libcuda.so.1": command(driver, "-I", str(COMMON_DIR), "-Wl,-soname,libcuda.so.1"),
        "device.so": command(backend),
    }
    reads = [*driver, *backend, *COMMON_DIR.glob("*.h")]
    return compiled_once.libraries("fake_serving", commands, reads)


@functools.cache
def emulated_kernels() -> str:
    """The libraries with the kernels that tests launch, as the driver wants them named.

    Those by which designs are checked, and of `fused` some that write float32 rows as narrower ones.
    """
    ours = {name: kernels.design(name) for name in kernels.DESIGNS}
    wanted = [(design, instances.of(design)) for design in ours.values()]
    narrower = [
        made
        for made in kernels.instances(ours["fused"], "float32")
        if made.output_dtype != "float32" and made.index_dtype == "int64" and made.generic is not True
    ]
    libraries = [compiled(*pair).library for pair in [*wanted, (ours["fused"], narrower)]]
    return ":".join(map(str, libraries))


def write_names(into: Path, design: Design) -> None:
    """A folder of kernels as the wheel has one for each design."""
    symbols = {
        made.expression: symbol(design, made)
        for row_type in kernels.OUTPUTS
        for made in kernels.instances(design, row_type)
    }
    into.mkdir(parents=True)
    lines = kernels.description(design, (80, 90), symbols, ptx=False)
    (into / "kernels.txt").write_text("".join(f"{line}\n" for line in lines))
    for row_type in kernels.OUTPUTS:
        (into / f"{row_type}.fatbin").write_bytes(f"{design.name} {row_type}".encode() + b"\0")


def on_fake_gpu(folder: Path, code: str, **environment: str) -> list[str]:
    """The lines that the code prints; it must not fail."""
    usual = {
        "FAKE_DRIVER": "13000",
        "FAKE_MULTIPROCESSORS": "4",
        "EMULATED_KERNELS": emulated_kernels(),
    }
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(folder)],
        env={**os.environ, **usual, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


LARGE, STREAM, TABLES = (
    f"fused_lookup_{name}_float32_float32_int64" for name in ("large", "stream", "tables")
)


def test_each_kind_of_call_has_its_kernel(fake_gpu: Path) -> None:
    code = """
print(*run(alike(3), 5, 9), sep="\\n")  # loads, then few rows
print(*run(alike(3), 5, 90), sep="\\n")  # some, few bags
print(*run(alike(60), 13, 90), sep="\\n")  # many bags of some rows
print(*run(alike(3), 5, 90, "max"), sep="\\n")
print(*run(alike(3), 5, 9, weights=True, index=torch.int32), sep="\\n")
print(*run(some_tables((9, 4, "float32"), (8, 12, "float32")), 5, 90), sep="\\n")
print(*run(some_tables((9, 3, "float16"), (8, 5, "float16")), 5, 90), sep="\\n")  # no even number of columns
"""
    stream = "stream 0x1000"
    assert on_fake_gpu(fake_gpu, code) == [
        "load fused float32",
        "allocate 4096",
        f"{STREAM} grid 15,1,1 block 32,8,1 {stream} tables 3 first 0 dim 4",
        f"{TABLES}_fast grid 5,3,1 block 32,4,1 {stream} tables 3 first 0 dim 4",
        f"{LARGE} grid 4,1,1 block 32,16,1 {stream} tables 30 first 0 dim 4",
        f"{LARGE} grid 4,1,1 block 32,16,1 {stream} tables 30 first 30 dim 4",
        f"{TABLES}_generic grid 5,3,1 block 32,4,1 {stream} tables 3 first 0 dim 4",
        "fused_lookup_tables_float32_float32_int32_generic"
        f" grid 5,3,1 block 32,4,1 {stream} tables 3 first 0 dim 4",
        f"{STREAM} grid 10,1,1 block 32,8,1 {stream} tables 2 first 0 dim 12",
        "load fused float16",
        "fused_lookup_tables_float16_float32_int64_generic"
        f" grid 5,2,1 block 32,2,1 {stream} tables 2 first 0 dim 5",
    ]


def test_types_of_rows_are_launched_apart(fake_gpu: Path) -> None:
    code = """
tables = some_tables((9, 8, "float16"), (5, 32, "int4"), (7, 4, "float32"), (6, 8, "float16"))
for line in run(tables, 3, 5, output=torch.float32): print(line)
print(_operators.last_kernel())
"""
    assert on_fake_gpu(fake_gpu, code) == [
        "load fused float32",
        "allocate 4096",
        f"{STREAM} grid 3,1,1 block 32,8,1 stream 0x1000 tables 1 first 2 dim 4",
        "load fused float16",
        "fused_lookup_stream_float16_float32_int64"
        " grid 6,1,1 block 32,8,1 stream 0x1000 tables 2 first -1 dim 8",
        "load fused int4",
        "fused_lookup_stream_int4_float32_int64"
        " grid 3,1,1 block 32,8,1 stream 0x1000 tables 1 first 1 dim 32",
        "fused_lookup_stream_int4_float32_int64",
    ]


def test_the_kernels_that_are_asked_for_are_launched(fake_gpu: Path) -> None:
    code = """
print(*run(alike(3), 5, 9, kernel="vectorized"), sep="\\n")
print(_operators.last_kernel())
run(some_tables((9, 4, "float32"), (8, 12, "float32")), 13, 90, kernel="vectorized")
print(_operators.last_kernel())  # of whole vectors, though unlike
for options in ({"weights": True}, {"modes": "max"}):
    run(alike(3), 5, 9, kernel="vectorized", **options)
    print(_operators.last_kernel())
run(some_tables((9, 4, "float16"), (8, 12, "float16")), 5, 9, kernel="vectorized")
print(_operators.last_kernel())  # rows of 8 bytes
print(*run(alike(4), 5, 9, kernel=["vectorized", "fused", "vectorized", "fused"]), sep="\\n")
"""
    grid = "block 32,4,1 stream 0x1000 tables"
    assert on_fake_gpu(fake_gpu, code) == [
        "load vectorized float32",
        "allocate 4096",
        f"vectorized_lookup_tables_float32_float32_int64_fast grid 5,3,1 {grid} 3 first 0 dim 4",
        "vectorized_lookup_tables_float32_float32_int64_fast",
        "vectorized_lookup_tables_float32_float32_int64_fast",
        "vectorized_lookup_tables_float32_float32_int64_generic",
        "vectorized_lookup_tables_float32_float32_int64_generic",
        "vectorized_lookup_tables_float16_float32_int64_generic",
        "load fused float32",
        f"{STREAM} grid 10,1,1 block 32,8,1 stream 0x1000 tables 2 first -1 dim 4",
        f"vectorized_lookup_tables_float32_float32_int64_fast grid 5,2,1 {grid} 2 first -1 dim 4",
    ]


def test_narrower_outputs_have_the_same_kernels(fake_gpu: Path) -> None:
    code = """
for output in (torch.float16, torch.bfloat16):
    for tables, bags, longest in ((3, 5, 9), (3, 5, 90), (3, 13, 90)):
        run(alike(tables, 8), bags, longest, output=output)
        print(_operators.last_kernel())
"""
    found = [
        f"fused_{name.format(f'float32_{output}_int64')}"
        for output in ("float16", "bfloat16")
        for name in ("lookup_stream_{}", "lookup_tables_{}_fast", "lookup_large_{}")
    ]
    assert on_fake_gpu(fake_gpu, code) == found


def test_tickets_are_a_streams_own_and_a_captured_launchs(fake_gpu: Path) -> None:
    code = """
run(alike(2), 3, 2)
print(run(alike(2), 3, 2, device=1)[:2])
driver.fake_capture(1)
for _ in range(511): assert len(run(alike(1), 1, 1)) == 1
print(run(alike(1), 1, 1)[0])
"""
    assert on_fake_gpu(fake_gpu, code) == ["['load fused float32', 'allocate 4096']", "allocate 4096"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"FAKE_DRIVER": "12080"},
            "The NVIDIA driver is one of CUDA 12.8, and embedding_kernels needs ",
        ),
        ({"FAKE_CAPABILITY": "75"}, "GPU 0 is an sm_75, and embedding_kernels is compiled for sm_80, "),
        (
            {"FAKE_CAPABILITY": "100"},
            "GPU 0 is an sm_100, and embedding_kernels is compiled for sm_80, ",
        ),
        ({"FAKE_REFUSES": "1"}, "The driver of CUDA 13.0 refuses "),
    ],
)
def test_a_gpu_that_cannot_is_told_in_words(fake_gpu: Path, environment: dict[str, str], words: str) -> None:
    code = """
print(_operators.refusal(0))
try:
    run(alike(2), 3, 2)
except RuntimeError as error:
    print(error)
"""
    said = on_fake_gpu(fake_gpu, code, **environment)
    assert said[-1].startswith(words)
    assert said[0] == ("" if "FAKE_REFUSES" in environment else said[-1])


def test_a_cubin_serves_later_minor_versions(fake_gpu: Path) -> None:
    said = on_fake_gpu(fake_gpu, "print(run(alike(2), 3, 2)[0])", FAKE_CAPABILITY="86")
    assert said == ["load fused float32"]


def test_a_launch_that_waits_on_one_gpu_holds_up_no_other(fake_gpu: Path) -> None:
    code = """
driver.fake_hold.argtypes = [ctypes.c_void_p]
run(alike(2), 3, 2), run(alike(2), 3, 2, device=1)
driver.fake_hold(0x1000)
waiting = threading.Thread(target=run, args=(alike(2), 3, 2))
waiting.start()
driver.fake_await_held()
print([line.partition(" block")[0] for line in run(alike(2), 3, 2, device=1)], waiting.is_alive())
driver.fake_hold(None)
waiting.join()
"""
    said = on_fake_gpu(fake_gpu, code)
    assert said == [f"['{STREAM} grid 6,1,1'] True"]


def test_a_launch_is_on_the_tables_device_and_the_current_one_stays(fake_gpu: Path) -> None:
    code = """
def on(device):
    before = driver.fake_device_guards()
    run(alike(2), 3, 2, device=device)
    return driver.fake_launched_on(), driver.fake_device_guards() - before
print(on(0), on(0), on(1), on(1), on(0))
"""
    # A thread's first lookup, and those on another device than the current one, switch it.
    assert on_fake_gpu(fake_gpu, code) == ["(0, 1) (0, 0) (1, 1) (1, 1) (0, 0)"]


def test_threads_load_once(fake_gpu: Path) -> None:
    code = """
module = ek.EmbeddingTables(alike(3))
indices, offsets = batch(alike(3), 4, 3)
given = [fake.on_gpu(t, 0) for t in (module.storage, module.descriptors, indices, offsets)]
def work():
    for _ in range(50):
        _operators.lookup_eager(*given, None, None, module._numbers.tensor)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
found = events()
print(len(found), sum(line.startswith("load") for line in found), sum("allocate" in line for line in found))
"""
    assert on_fake_gpu(fake_gpu, code) == ["202 1 1"]
