"""`partita calibrate`: times this machine's kernels, for predictions of a step's time."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..compiler.cost.table import Table
from ..runtime.calibrate import calibrate
from ..runtime.machine import measure
from .arguments import write_text
from .calibration import bare_table, cached, write_table
from .fault import CommandFault

EXAMPLE = "partita calibrate -o here.partita"
DTYPES = ("f32", "bf16")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16", "f64"), action="append", help="may be repeated")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="also a `cluster` record, as .partita, and the table beside it, as .json"
    )


def run(options: argparse.Namespace) -> int:
    """Measures for about a minute and writes the table where `train`, `compile` and `show --time` look for it."""
    if options.device != "cpu" and not torch.cuda.is_available():
        raise CommandFault(f"there is no device `{options.device}` here", exit_code=1)
    if options.out is not None and not options.out.endswith(".partita"):
        raise CommandFault(f"`{options.out}` is a spec: end its name in .partita")
    dtypes = tuple(dict.fromkeys(("f32", *(options.dtype or DTYPES))))
    table = measured(options.device, dtypes)
    paths = [cached(options.device)]
    try:
        if options.out is not None:
            out = Path(options.out)
            write_text(out, cluster_text(out.stem, table))
            paths.append(out.with_suffix(".json"))
        for path in paths:
            write_table(table, path)
    except OSError as fault:
        raise CommandFault(f"cannot write {fault.filename}: {fault.strerror}", exit_code=1) from fault
    print(f"{table.device}, PyTorch {table.torch}, {table.threads} threads: {len(table.points)} points")
    print("\n".join(str(path) for path in ([Path(options.out)] if options.out else []) + paths))
    return 0


def measured(device: str, dtypes: tuple[str, ...]) -> Table:
    """The machine's figures and points; what is being timed is said on standard error."""
    bare = bare_table(device, [measure(device, dtype) for dtype in dtypes])
    points = calibrate(device, dtypes, _say if sys.stderr.isatty() else None)
    return replace(bare, points=tuple(points))


def _say(words: str) -> None:
    """Over the line before."""
    print(f"\r{words:30}\r", end="", file=sys.stderr, flush=True)


def cluster_text(name: str, table: Table) -> str:
    """The record of one such device."""
    word = "".join(c if c.isalnum() and c.isascii() else "_" for c in name).strip("_") or "here"
    word = word if word[0].isalpha() else f"m_{word}"
    machine = table.machine
    rates = [f"    {dtype.value:<9} = {rate / 1e9:.6g} GFLOP/s" for dtype, rate in machine.flops_per_s.items()]
    lines = [
        f"## {' '.join(table.device.split())}, PyTorch {table.torch}, {table.threads} threads: measured.",
        f"cluster {word} {{",
        "  device Device {",
        f"    memory    = {table.memory_bytes / 2**30:.6g} GiB",
        f"    bandwidth = {machine.bandwidth_bytes_per_s / 1e9:.6g} GB/s",
        *rates,
        f"    launch    = {machine.launch_s * 1e6:.4g} us",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"
