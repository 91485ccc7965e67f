"""`python -m harness.bench.spare`: the process of a launch that is not known yet.

PyTorch takes seconds to load, often longer than a launch takes to sample all its cells. So this loads it, as
it is and without starting CUDA, and waits to be told on stdin which launch it is (`wall.Told`, one line);
then it goes on as `python -m harness.bench` in the environment of that launch. Nothing that is measured is
loaded before that. Ends when stdin does.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys

from harness import wall


def main() -> None:
    """Loads, waits, and becomes the launch."""
    gc.disable()
    try:
        import harness.bench.cell  # noqa: F401
    except Exception:  # told by the launch itself, which tries again
        loaded = False
    else:
        loaded = True
    gc.freeze()
    gc.enable()
    line = sys.stdin.readline()
    if not line:
        return
    told = wall.Told.of_line(line)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    if not loaded:
        os.execve(sys.executable, [sys.executable, "-m", wall.BENCH, *told.arguments], told.environment)
    os.environ.clear()
    os.environ.update(told.environment)
    sys.argv[1:] = told.arguments
    runpy.run_module(wall.BENCH, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
