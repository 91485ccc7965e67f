"""python -m kernel_wheel.serving FOLDER: TorchRec with FBGEMM's tables beside the same after `optimize`.

Whole inferences of a model of experiments/models that has a dense part, by default dlrm_dcnv2 with tables cut
down to 3 million rows: latencies and samples per second at several batch sizes, eager, the host's part
included, and as CUDA graphs. Outputs are held against each other first. Writes FOLDER/serving.json, anew
after every batch size; interrupted, the same command goes on with those that are left, from the same commit
on the same GPU. Needs TorchRec, FBGEMM and a GPU. --device cpu shows on any machine that all parts are there;
small tables and batches (--max-rows 1000 --batch 8 --blocks 2) do for that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import console
from harness.errors import HarnessError, InterruptedRunError
from harness.signals import as_interrupt
from kernel_wheel import served_record

BATCHES = (1, 8, 64, 512, 2048, 4096, 16384)
ROW_TYPES = ("float32", "float16", "int8", "int4")


def main() -> int:
    """The exit code."""
    given = _arguments()
    target = given.folder / served_record.NAME
    try:
        with as_interrupt(), console.Steps("Serving") as steps:
            served_record.require_unfinished(target)
            steps.now("PyTorch is loaded")  # not before something is said: from a cold disk that takes long
            from kernel_wheel import comparison

            comparison.compared(given, target, steps)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"Interrupted{served_record.kept(target)}", file=sys.stderr)
        return InterruptedRunError.exit_code
    print(target)
    return 0


def _arguments() -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m kernel_wheel.serving", description=head.partition(": ")[2], epilog=rest
    )
    parser.add_argument("folder", type=Path, help="the record is written here, as serving.json")
    parser.add_argument("--model", default="dlrm_dcnv2", help="name or file (default: dlrm_dcnv2)")
    parser.add_argument("--max-rows", type=int, default=3_000_000, help="cut larger tables down; 0: none")
    parser.add_argument("--row-type", choices=ROW_TYPES, default="float32", help="(default: float32)")
    parser.add_argument("--traffic", help="a dataset or trace (default: as `harness tune`)")
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES), help="samples in a batch")
    parser.add_argument(
        "--blocks", type=int, default=20, help="of passes, in an order drawn anew (default: 20)"
    )
    parser.add_argument("--passes", type=int, default=25, help="of each model in each block (default: 25)")
    parser.add_argument("--plan", type=Path, help="plan.json that optimize is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
