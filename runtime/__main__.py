"""`python -m partita.runtime BUILD`: trains a build folder; under torchrun, one process for each device of its mesh.

    torchrun --nproc-per-node 2 -m partita.runtime out/demo/build --out out/demo

The first process speaks; what goes wrong in any is left where torchrun looks for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from .begin import Options
from .fault import RuntimeFault
from .metrics import EvalRecord, StepRecord
from .train import train

LINES = 20  # of a whole run
LOST = "Connection"  # what gloo says of when another process is gone
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


def main(words: Sequence[str] | None = None) -> int:
    """Trains; gives the exit code: 0, 1 for a fault, 130 or 143 after a signal."""
    given = _parser().parse_args(words)
    options = Options(
        folder=Path(given.out),
        resume=given.resume,
        overwrite=given.overwrite,
        data_root=Path(given.data_root) if given.data_root else None,
        device=given.device,
        dump=tuple(given.dump),
        kernels=tuple(given.kernels),
        timeline=given.timeline,
        timeout_s=given.timeout,
        on_step=say_step,
        on_evaluate=say_evaluation,
        on_warning=lambda words: print(f"warning: {words}", flush=True),
    )
    try:
        return train(Path(given.build), options).exit_code
    except (RuntimeFault, RuntimeError) as fault:
        if ERROR_FILE in os.environ:
            get_error_handler().record_exception(fault)
            if isinstance(fault, RuntimeFault) or LOST in str(fault):
                return 1  # whoever started us says why
        elif isinstance(fault, RuntimeFault):
            print(fault, file=sys.stderr)
            return 1
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m partita.runtime", description="Train a build folder.")
    parser.add_argument("build", metavar="BUILD", help="a folder that `partita compile` wrote")
    parser.add_argument("--out", metavar="DIR", required=True, help="the run's folder: checkpoints and metrics")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run")
    parser.add_argument("--data-root", metavar="DIR", help="where the data's paths begin")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--timeout", metavar="S", type=float, help="seconds that a process waits for another")
    parser.add_argument("--timeline", action="store_true", help="write when each part of the last step computed")
    parser.add_argument("--dump", metavar="NAME", action="append", default=[], help="write an output of the first step")
    parser.add_argument("--kernels", metavar="NAME", action="append", default=[], help="allow a foreign kernel")
    return parser


def say_step(record: StepRecord) -> None:
    """About twenty lines a run."""
    every = max(1, record.steps // LINES)
    if record.step == 1 or record.step % every == 0 or record.step == record.steps:
        speed = f"{record.tokens_per_second:,.0f} tokens/s"
        print(f"step {record.step}/{record.steps}  loss {record.loss:.4f}  {speed}", flush=True)


def say_evaluation(record: EvalRecord) -> None:
    """The held-out loss."""
    print(f"step {record.step}  held-out loss {record.loss:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
