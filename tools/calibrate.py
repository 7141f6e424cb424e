"""`partita calibrate`: times this machine's kernels, and messages between its processes, for predictions and prices.

With `--processes N` kernels are timed in so many processes at once, each with its part of the cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ..compiler.cost.table import Table, link_of, read_table
from ..runtime.calibrate import THOROUGH, calibrate
from ..runtime.fault import RuntimeFault
from ..runtime.launch import launch_module
from ..runtime.machine import measure
from .arguments import write_text
from .busy import DISTURBED, Watch
from .calibrate_process import Task
from .calibration import bare_table, cached, demand, write_table
from .fault import CommandFault
from .machines import MOST_PROCESSES

EXAMPLE = "partita calibrate -o here.partita"
DTYPES = ("f32", "bf16")
EFFORT = THOROUGH  # of each of several processes
MOST_BYTES = 1 << 24  # of a message that is timed


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16", "f64"), action="append", help="may be repeated")
    parser.add_argument(
        "--processes", type=int, metavar="N", default=1,
        help="in so many at once, with the messages among them: for layouts and plans",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="also a `cluster` record, as .partita, and the table beside it, as .json"
    )


def run(options: argparse.Namespace) -> int:
    """Measures for about a minute and writes the table where `train`, `compile` and `show --time` look for it."""
    demand(options.device)
    if options.out is not None and not options.out.endswith(".partita"):
        raise CommandFault(f"`{options.out}` is a spec: end its name in .partita")
    dtypes = tuple(dict.fromkeys(("f32", *(options.dtype or DTYPES))))
    if not 1 <= options.processes <= MOST_PROCESSES:
        raise CommandFault(f"--processes {options.processes}: from 1 to {MOST_PROCESSES}")
    count, watch = options.processes, Watch()
    table = measured(options.device, dtypes) if count == 1 else measured_together(options.device, dtypes, count)
    others = watch.others()
    paths = [cached(options.device, processes=count)]
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
    if table.messages:
        link = link_of(table.messages)
        said = f"{link.bandwidth_bytes_per_s / 1e9:.3g} GB/s a process, {link.latency_s * 1e6:.3g} us a message"
        print(f"{len(table.messages)} collectives among {count} processes: about {said}")
    if others > DISTURBED:
        print(f"others took {others:.0%} of the cores meanwhile: kernels seem slower than they are")
    print("\n".join(str(path) for path in ([Path(options.out)] if options.out else []) + paths))
    return 0


def measured(device: str, dtypes: tuple[str, ...]) -> Table:
    """The machine's figures and points; what is being timed is said on standard error."""
    bare = bare_table(device, [measure(device, dtype) for dtype in dtypes])
    points = calibrate(device, dtypes, _say if sys.stderr.isatty() else None)
    return replace(bare, points=tuple(points))


def measured_together(device: str, dtypes: tuple[str, ...], processes: int) -> Table:
    """The same in processes that are started here. Raises CommandFault where one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        task, out = Path(folder) / "task.json", Path(folder) / "table.json"
        Task(device.partition(":")[0], dtypes, EFFORT, MOST_BYTES, str(out)).write(task)
        try:
            launch_module(f"{__package__}.calibrate_process", processes, [str(task)])
        except RuntimeFault as fault:
            raise CommandFault(f"{processes} processes could not time their kernels: {fault}", exit_code=1) from fault
        return read_table(out)


def _say(words: str) -> None:
    """Over the line before."""
    print(f"\r{words:30}\r", end="", file=sys.stderr, flush=True)


def cluster_text(name: str, table: Table) -> str:
    """The record of such devices: as many as messages were timed among."""
    word = "".join(c if c.isalnum() and c.isascii() else "_" for c in name).strip("_") or "here"
    word = word if word[0].isalpha() else f"m_{word}"
    machine, cluster = table.machine, table.cluster()
    crowd = "" if cluster.abreast is None else f", abreast = {cluster.abreast}"
    rates = [f"    {dtype.value:<9} = {rate / 1e9:.6g} GFLOP/s" for dtype, rate in machine.flops_per_s.items()]
    lines = [
        f"## {' '.join(table.device.split())}, PyTorch {table.torch}, {table.threads} threads: measured.",
        f"cluster {word} {{",
        "  device Device {",
        f"    memory    = {cluster.memory_bytes / 2**30:.6g} GiB",
        f"    bandwidth = {machine.bandwidth_bytes_per_s / 1e9:.6g} GB/s",
        *rates,
        f"    launch    = {machine.launch_s * 1e6:.4g} us",
        "  }",
        *(
            f"  level host {{ of = {level.members} * Device, link = {level.link.bandwidth_bytes_per_s / 1e9:.4g} GB/s, "
            f"latency = {level.link.latency_s * 1e6:.4g} us{crowd} }}"
            for level in cluster.levels
        ),
        "}",
    ]
    return "\n".join(lines) + "\n"
