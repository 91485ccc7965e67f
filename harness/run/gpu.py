"""What NVML tells the host about its GPUs. Read only: nothing here changes a GPU's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from harness.errors import BadInputError, MachineError


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine."""

    index: int
    uuid: str
    name: str
    driver: str
    """Version of the driver, for example "580.65.06"."""
    memory_bytes: int
    free_bytes: int
    capability: tuple[int, int] = (0, 0)
    """Compute capability, for example (9, 0)."""


def gpus() -> list[Gpu]:
    """Every GPU here; MachineError where there is no NVIDIA driver or no GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MachineError(
            f"There is no NVIDIA GPU with a working driver ({error}); install NVIDIA's driver, or measure on "
            "the CPU with --local --set workload.device=cpu."
        ) from error
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return [_read(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise MachineError(f"The NVIDIA driver does not answer ({error}); try `nvidia-smi`.") from error
    finally:
        pynvml.nvmlShutdown()


ALL = "all"
"""The choice of every GPU of a machine."""


def several(choice: str) -> bool:
    """Whether the choice may be of more than one GPU."""
    return choice == ALL or "," in choice


def find(choice: str) -> list[Gpu]:
    """The GPUs of this choice: an index, a UUID, several of them with commas between, or `ALL`.

    BadInputError names those there are where one is none of them, and where they are of different models,
    whose times are not to be mixed in one run."""
    found = gpus()
    known = ", ".join(f"{gpu.index} ({gpu.name}, {gpu.uuid})" for gpu in found) or "none"
    chosen: dict[str, Gpu] = {}
    for name in [gpu.uuid for gpu in found] if choice == ALL else choice.split(","):
        for gpu in found:
            if name.strip() in (str(gpu.index), gpu.uuid):
                chosen[gpu.uuid] = gpu
                break
        else:
            raise BadInputError(
                f"--gpu {choice}: {name.strip()!a} is not a GPU of this machine; there are: {known}."
            )
    if not chosen:
        raise BadInputError(f"--gpu {choice}: is not a GPU of this machine; there are: {known}.")
    if len({(gpu.name, gpu.memory_bytes) for gpu in chosen.values()}) > 1:
        raise BadInputError(
            f"--gpu {choice}: is of different models, and a run is of one; name GPUs of one model ({known})."
        )
    return list(chosen.values())


def older(driver: str, minimum: str) -> bool:
    """Whether a driver's version is less than another, number by number."""
    return _numbers(driver) < _numbers(minimum)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _read(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(index, uuid, name, driver, int(memory.total), int(memory.free), (major, minor))


def _text(value: str | bytes) -> str:
    """Older bindings hand out bytes."""
    return value.decode() if isinstance(value, bytes) else value
