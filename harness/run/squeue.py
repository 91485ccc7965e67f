"""How Slurm is asked: its own commands, which work where it keeps no accounts, and sentences for what is
missing. Jobs are submitted through submitit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.errors import BadInputError, MachineError

AT_WORK = frozenset(
    {
        *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
        *("RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED"),
    }
)
"""States of a job from which records may still come."""
MOST_IN_ARRAY = 500
"""Jobs: clusters allow a thousand where nobody has set another limit (MaxArraySize)."""
_MINUTES = 60
"""Of a job that was given no time."""
_OPTIONS = (
    *("partition", "gres", "time", "mem", "cpus_per_task", "gpus_per_node"),
    *("account", "qos", "constraint", "exclude", "comment"),
)
"""Those of sbatch's that make sense for a replicate, as submitit calls them."""


def options_of(text: str) -> dict[str, str]:
    """Options of sbatch's from "partition=gpu,gres=gpu:1"; BadInputError where one is none, there is no such
    partition, or Slurm would refuse a job with them."""
    require()
    found: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        name = key.replace("-", "_")
        if not value or name not in _OPTIONS:
            raise BadInputError(
                f"--slurm {part.strip()!a}: is none of {', '.join(_OPTIONS)} with a value; write for example "
                "partition=gpu,gres=gpu:1,time=60."
            )
        found[name] = value
    there = _said("sinfo", "--noheader", "--format=%R").split()
    if (wanted := found.get("partition")) is not None and wanted not in there:
        raise BadInputError(
            f"--slurm partition={wanted}: there is no such partition; there are: {', '.join(there)}."
        )
    words = [f"--{name.replace('_', '-')}={value}" for name, value in found.items()]
    tried = _ask("sbatch", "--test-only", "--wrap=true", *words)
    if tried.returncode:
        raise BadInputError(f"--slurm {text}: Slurm would refuse the jobs: {_last(tried.stderr)}.")
    return found


def require() -> None:
    """MachineError where nothing can be submitted from here."""
    if find_spec("submitit") is None:
        raise MachineError(
            "submitit is not installed here; `pip install 'embedding-harness[slurm]'` adds it."
        )
    _said("sinfo", "--version")


def submit(
    work: Callable[..., None],
    each: Sequence[Sequence[object]],
    *,
    name: str,
    options: Mapping[str, str],
    folder: Path,
) -> list[str]:
    """Submits a job for each of these arguments, as arrays; their ids. `folder`: where submitit
    keeps its files, which the nodes see too. BadInputError where Slurm refuses them: then none is
    left in its queue."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    given = {key: int(value) if value.isdecimal() else value for key, value in options.items()}
    made: list[str] = []
    try:
        executor = submitit.SlurmExecutor(folder=folder)
        executor.update_parameters(**{"job_name": name, "time": _MINUTES, "signal_delay_s": 10, **given})
        for begin in range(0, len(each), MOST_IN_ARRAY):
            with executor.batch():
                jobs = [executor.submit(work, *one) for one in each[begin : begin + MOST_IN_ARRAY]]
            made += [str(job.job_id) for job in jobs]
        return made
    except (FailedJobError, FailedSubmissionError, ValueError, TypeError) as error:
        said = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        telling = [line for line in said if "error" in line.lower()] or said
        cancel(made)
        raise BadInputError(
            f"--slurm: Slurm refuses the jobs: {_last(telling[-1])}; none is in its queue."
        ) from error


def states(jobs: Iterable[str]) -> dict[str, str]:
    """By job, as Slurm tells; nothing of those that it has forgotten."""
    arrays = sorted({name.partition("_")[0] for name in jobs})
    if not arrays:
        return {}
    done = _ask(
        "squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}", "--format=%i|%T"
    )
    if done.returncode and "Invalid job id" not in done.stderr:
        raise MachineError(f"Slurm does not answer: {_last(done.stderr)}; try `squeue`.")
    found = (line.partition("|") for line in done.stdout.split())
    return {name: state for name, _, state in found}


def named(name: str) -> list[str]:
    """Jobs of that name that are running or pending."""
    return _said("squeue", "--noheader", "--array", f"--name={name}", "--format=%i").split()


def cancel(jobs: Sequence[str]) -> None:
    """Cancels jobs; those that have ended meanwhile are left as they are."""
    if jobs:
        _said("scancel", *jobs)


def _said(*command: str) -> str:
    done = _ask(*command)
    if done.returncode:
        raise MachineError(f"`{command[0]}` failed: {_last(done.stderr)}.")
    return done.stdout


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise MachineError(
            f"There is no `{command[0]}` here ({error.strerror}); run this on a machine that submits jobs to "
            "Slurm."
        ) from None


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return re.sub(r"^\w+: error: ", "", lines[-1]).rstrip(".")
