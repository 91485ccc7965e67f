"""Whole lookups through the patched operator, on a pretended GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.patch.manifest import LaunchShape
from tests.unit.patch.fake_gpu import on_fake_cuda
from tests.unit.patch.pretended_entry import entries


def test_lookups_return_what_the_kernel_computed_in_all_four_tensors(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
for count, seed in enumerate(range(60), start=1):
    case = random_case(seed, torch.float32, (torch.int32, torch.int64)[seed % 2])
    offsets = case.offsets
    if offsets is None:
        offsets = torch.arange(0, case.indices.numel(), case.indices.size(1), dtype=case.indices.dtype)
    output, offset2bag, bag_size, max_indices = run(
        (forward, forward_only)[seed % 3 == 0], case.table("cpu"), case.indices.reshape(-1), offsets,
        {"sum": 0, "mean": 1}[case.mode],
        None if case.sample_weights is None else case.sample_weights.reshape(-1),
        case.include_last_offset, -1 if case.padding_idx is None else case.padding_idx,
    )
    assert_right(output, case)
    assert offset2bag.tolist() == [bag for bag, rows in enumerate(case.bags) for _ in rows]
    assert bag_size.shape == offsets.shape
    kept = [sum(row != case.padding_idx for row in rows) for rows in case.bags]
    assert bag_size.tolist()[: len(kept)] == kept
    assert max_indices.shape == (0,)
    assert {offset2bag.dtype, bag_size.dtype, max_indices.dtype} == {case.indices.dtype}
    assert (patch.calls()["design"], patch.calls()["stock"]) == (count, 0), patch.calls()
print(patch.calls()["kernel"], patch.calls()["arch"])
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "combined_lookup_float32_int64_distance2 sm_90\n"


def test_the_launch_is_told_grid_block_and_the_current_stream_of_the_tables_device(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder, {"distance": 4})
run(forward, weight, indices, offsets)
fake.set_stream(5)
run(forward, weight, indices, offsets)
run(forward, weight, indices, offsets[:0])  # no bags: nothing to launch
run(forward, weight, indices.int(), offsets.int(), device=1)
assert fake.current_device() == 0
for line in events(): print(line)
"""
    shape = "grid 1024,1,1 block 32,8,1"
    assert on_fake_cuda(fake_cuda, make_design(), code).splitlines() == [
        "load stands for a cubin of sm_90",
        f"combined_lookup_float32_int64_distance4 {shape} stream 0x1000",
        f"combined_lookup_float32_int64_distance4 {shape} stream 0x1005",
        "load stands for a cubin of sm_90",  # the other device's
        f"combined_lookup_float32_int32_distance4 {shape} stream 0x2005",
    ]


def test_a_new_thread_gets_a_context_and_modules_load_once(fake_cuda: Path, make_design: Any) -> None:
    code = """
patch.apply(folder)
results = []
work = lambda: results.append(run(forward, weight, indices, offsets)[0])
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 8 and all(torch.equal(result, results[0]) for result in results)
patch.remove()
patch.apply(folder)
run(forward, weight, indices, offsets)
print(sum(line.startswith("load") for line in events()))
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "1\n"


def test_hot_rows_are_prepared_before_every_nth_lookup_of_their_table_alone(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
operators = torch.ops.embedding_harness
table, other = fake.on_gpu(weight, 0), fake.on_gpu(weight.clone(), 0)
rows = torch.tensor([3, 1])
here = [fake.on_gpu(tensor, 0) for tensor in (rows, indices, offsets)]
operators.set_hot_rows(table, here[0], 3)
for _ in range(7):
    forward(table.detach(), *here[1:])
    forward(other, *here[1:])
for line in events():
    print(line.split()[0])
print(fake.streams_recorded())
operators.set_hot_rows(table, here[0], 0)
forward(table, *here[1:])
patch.prepare(table)
patch.set_hot_rows(table, None)
forward(table, *here[1:])
others = torch.tensor([1, 3, 5])
patch.prepare(table, fake.on_gpu(others, 0))
print(*events(), sep="\\n")
for wrong in (rows, fake.on_gpu(rows.int(), 0)):
    try:
        patch.prepare(table, wrong)
    except RuntimeError as error:
        print(error)
"""
    lookup, prepare = "combined_lookup_float32_int64_distance2", "combined_prepare_float32"
    lines = on_fake_cuda(fake_cuda, make_design(), code).splitlines()
    pair = [lookup, lookup]
    assert lines[: 1 + 14 + 3] == ["load", *[prepare, *pair, *pair, *pair] * 2, prepare, *pair]
    assert lines[18] == "3"
    launched = "grid 1,1,1 block 256,1,1 stream 0x1000 3 1 bytes 16 stride 16"
    assert [line.partition(" ")[::2] for line in lines[20:21]] == [(prepare, launched)]
    given = "grid 1,1,1 block 256,1,1 stream 0x1000 1 3 5 bytes 16 stride 16"
    assert lines[22].partition(" ")[::2] == (prepare, given), "rows that are handed over are not those set"
    assert [line.split()[0] for line in lines[19:23]] == [lookup, prepare, lookup, prepare]
    refused = "Rows to pin are int64 and contiguous, on the table's device."
    assert lines[23:] == [refused] * 2


def test_hot_rows_of_a_freed_table_are_not_those_of_the_next_at_its_address(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
rows = torch.tensor([3, 1])
table = fake.on_gpu(weight, 0)
torch.ops.embedding_harness.set_hot_rows(table, fake.on_gpu(rows, 0), 1)
del table
again = fake.on_gpu(weight, 0)  # the same address, another table
here = [fake.on_gpu(tensor, 0) for tensor in (indices, offsets)]
forward(again, *here)
print(sum("prepare" in line for line in events()))
try:
    patch.prepare(again)
except RuntimeError as error:
    print(error)
"""
    said = "0\nNo hot rows are set for this table; call set_hot_rows first.\n"
    assert on_fake_cuda(fake_cuda, make_design(), code) == said


def test_a_gpu_or_driver_that_cannot_run_the_design_is_one_sentence(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
import os
patch.apply(folder)
for name, value in (
    ("FAKE_CAPABILITY", "75"), ("FAKE_CAPABILITY", "100"), ("FAKE_REFUSES", "1"), ("FAKE_LACKS_KERNELS", "1"),
):
    os.environ[name] = value
    try:
        run(forward, weight, indices, offsets)
    except RuntimeError as error:
        print(error)
    del os.environ[name]
os.environ["FAKE_CAPABILITY"] = "86"  # a cubin of sm_80 will do
run(forward, weight, indices, offsets)
print(patch.calls()["arch"])
"""
    design = make_design()
    refused = "The driver of CUDA 12.1 refuses design two_way as compiled for sm_90"
    neither = "Design two_way is compiled for sm_80, sm_90, none of which runs on this GPU"
    assert on_fake_cuda(fake_cuda, design, code).splitlines() == [
        f"{neither} (sm_75). Compile it for sm_75.",
        f"{neither} (sm_100). Compile it for sm_100.",
        f"{refused}: as the test asked (CUDA_ERROR_FAKE)."
        " Update the driver, or compile the design with an older toolchain.",
        f"{design}/sm_90.cubin: has no kernel combined_lookup_float32_int32_distance2"
        " (as the test asked (CUDA_ERROR_FAKE)). Compile design two_way again.",
        "sm_80",
    ]


def test_what_a_kernel_refuses_is_told_and_the_next_lookup_is_right(
    fake_cuda: Path, make_design: Any
) -> None:
    code = """
patch.apply(folder)
for wrong in (torch.tensor([1, 10, 3]), torch.tensor([1, -1, 3])):
    try:
        run(forward, weight, wrong, offsets)
    except RuntimeError as error:
        print(error)
    torch.testing.assert_close(run(forward, weight, indices, offsets)[0][1], weight[3])
"""
    kernel = "combined_lookup_float32_int64_distance2"
    assert (
        on_fake_cuda(fake_cuda, make_design(), code).splitlines()
        == [f"CUDA error: every index is a row of the table (CUDA_ERROR_FAKE) when launching {kernel}."] * 2
    )


def test_l2_is_set_aside_and_given_back_through_the_driver(fake_cuda: Path, make_design: Any) -> None:
    code = """
patch.apply(folder)
operators = torch.ops.embedding_harness
print(operators.set_persisting_l2_bytes(0, 5000))
operators.reset_persisting_l2(0)
print(*events())
"""
    assert on_fake_cuda(fake_cuda, make_design(), code) == "4096\nreset\n"


def test_fast_calls_get_their_own_instance_and_inference_nothing_but_the_output(
    fake_cuda: Path, make_design: Any
) -> None:
    folder = make_design()
    only = {"dtype": ["float32"], "index_dtype": ["int64"]}
    make_design(
        entries=entries(folder, "vectorized", **only),
        launch=LaunchShape(32, 4, blocks=0, bags_per_block=1, columns_per_block=0, blocks_per_sm=0),
        prepares=False,
        tunables={},
        output_only=True,
    )
    code = """
patch.apply(folder)
wide = torch.randn(10, 8)
for table, scales, padding in (
    (weight, None, -1), (wide, None, -1), (wide, None, 0), (wide, torch.ones(3), -1), (wide[:, :3], None, -1),
    (wide[:, :4], None, -1), (wide[:, 2:6], None, -1), (wide.t().contiguous().t(), None, -1),
):
    for op in (forward, forward_only):
        outputs = run(op, table, indices, offsets, scales=scales, padding=padding)
        torch.testing.assert_close(outputs[0], torch.stack([table[1:3].sum(0), table[3]]))
        served = "fast" if patch.calls()["kernel"].endswith("fast") else "generic"
        print(served, [len(output) for output in outputs])
here = [fake.on_gpu(tensor, 0) for tensor in (indices, wide, offsets)]
module = torch.nn.EmbeddingBag(10, 8, mode="mean", _weight=here[1]).requires_grad_(False)
torch.testing.assert_close(fake.on_cpu(module(here[0], here[2])), torch.stack([wide[1:3].mean(0), wide[3]]))
function = torch.nn.functional.embedding_bag(*here, mode="sum")
torch.testing.assert_close(fake.on_cpu(function), torch.stack([wide[1:3].sum(0), wide[3]]))
assert patch.calls()["design"] == 18, patch.calls()
"""
    with_both, without = "[2, 3, 2, 0]", "[2, 0, 0, 0]"
    served = ["fast", "fast", *["generic"] * 3, "fast", "generic", "generic"]
    assert on_fake_cuda(fake_cuda, folder, code).splitlines() == [
        f"{name} {sizes}" for name in served for sizes in (with_both, without)
    ]
