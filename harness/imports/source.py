"""Traffic of whole models, from whatever file or folder it is kept in."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BadInputError
from harness.imports import dlrm_datasets, jagged, torch_file, trace_folders
from harness.imports.traffic import Traffic
from harness.text import readable
from harness.traces import formats, streams
from harness.traces.trace import Progress


def read(
    source: Path, scratch: Path, pooling: int | None = None, progress: Progress | None = None
) -> Traffic:
    """What a folder of traces holds, or a file of torch.save, packed or not: a KeyedJaggedTensor, or the
    tensors of Meta's `dlrm_datasets`.

    `scratch`: a folder for what has to be unpacked, which must stay as long as the traffic is used.
    `pooling`: of traces without bags of their own. BadInputError where the source holds something else.
    """
    called = readable(source)
    if (source / "trace.json").is_file():
        raise BadInputError(f"{called}: is one table's trace; name the folder with the traces of all tables.")
    if source.is_dir():
        return trace_folders.features(source, pooling, progress)
    if pooling is not None:
        raise BadInputError(f"{called}: has bags of its own; --pooling is for folders of traces.")
    if formats.format_of(source) != "pt":
        raise BadInputError(
            f"{called}: is neither a folder of traces nor a .pt file of torch.save, packed or not."
        )
    file = streams.as_file(source, scratch, progress)
    loaded, file_bytes = torch_file.load(file, called), file.stat().st_size
    if jagged.is_one(loaded):
        return jagged.features(loaded, called, file_bytes)
    if dlrm_datasets.is_one(loaded):
        return dlrm_datasets.features(loaded, called, file_bytes)
    raise BadInputError(
        f"{called}: holds neither a KeyedJaggedTensor, or a dict of keys, values and lengths, nor the three "
        "tensors indices, offsets and lengths."
    )
