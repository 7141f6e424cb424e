"""This machine's table of timed kernels: where it is kept, whether it still holds, and what stands in for it.

A table is of one device, one PyTorch, one number of threads, of processes that timed at once, and one set of probes;
under another of these it is passed over. It lies in the user's cache, or in the file beside a `cluster` record, and is
checked when it is read.
"""

from __future__ import annotations

import os
import platform
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from ..compiler.cost.roofline import Machine
from ..compiler.cost.table import Table, TableError, read_table, to_json
from ..compiler.ir.types import DType
from ..compiler.language.tables import cache_folder
from ..runtime import calibrate_messages
from ..runtime.calibrate import PROBES, QUICK, calibrate
from ..runtime.machine import Rates, measure
from .arguments import write_text
from .fault import CommandFault


def device_name(device: str) -> str:
    """What a device is called, such as `cpu: AMD EPYC`."""
    if device.startswith("cuda"):
        return f"cuda: {torch.cuda.get_device_name(torch.device(device))}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return f"cpu: {line.partition(':')[2].strip()}"
    return f"cpu: {platform.processor() or platform.machine()}"


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(processes: int) -> int:
    """Of each of so many processes of a mesh on this host; alone as many as torch takes."""
    return torch.get_num_threads() if processes == 1 else max(1, cores() // processes)


def probes_of(processes: int) -> int:
    """Which set of probes is in use: of kernels, and where there are several processes of messages too."""
    return PROBES if processes == 1 else 1000 * calibrate_messages.PROBES + PROBES


def cached(device: str, quick: tuple[str, ...] = (), processes: int = 1) -> Path:
    """Where the table of a device under this PyTorch, in so many processes, is kept; a `quick` one has these types."""
    key = f"{device_name(device)}|{torch.__version__}|{threads_of(processes)}|{processes}|{probes_of(processes)}"
    return cache_folder() / f"{''.join(f'{dtype}-' for dtype in quick)}kernels-{zlib.crc32(key.encode()):08x}.json"


def write_table(table: Table, path: Path) -> None:
    """Writes the table whole. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(table))


def fits(table: Table, device: str, processes: int = 1) -> bool:
    """Whether a table was made on this device, with this PyTorch, in so many processes, by these probes."""
    here = (device_name(device), torch.__version__, threads_of(processes), processes, probes_of(processes))
    return (table.device, table.torch, table.threads, table.processes, table.probes) == here


def table_here(device: str, processes: int) -> Table | None:
    """The table that so many processes have timed on this machine, where it still holds."""
    return _kept(cached(device, processes=processes), device, processes)


def has_device(device: str) -> bool:
    """Whether this machine has the device. Raises CommandFault for what is no device."""
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise CommandFault(f"`--device {device}`: cpu or cuda")
    return not device.startswith("cuda") or torch.cuda.is_available()


def demand(device: str) -> None:
    """Raises CommandFault where this machine does not have the device."""
    if not has_device(device):
        raise CommandFault(
            f"there is no device `{device}` here",
            "`partita compile` needs none; `partita show --time --cluster NAME` prices a machine of the catalogue",
            exit_code=1,
        )


def table_for(device: str) -> Table:
    """The device's table where `partita calibrate` has made one; else its measured roofline (two seconds)."""
    demand(device)
    return _kept(cached(device), device) or bare_table(device, [measure(device)])


def quick_table(device: str, compute: str) -> Table:
    """The same, but where there is none a coarse one is made in a few seconds, and kept: float32 and one other type.

    The roofline is a bound that small kernels stay far from; a few runs of each come near to what they take.
    """
    demand(device)
    dtypes = tuple(dict.fromkeys(("f32", compute)))
    path = cached(device, dtypes)
    found = _kept(cached(device), device) or _kept(path, device)
    if found is None:
        bare = bare_table(device, [measure(device, dtype) for dtype in dtypes])
        found = replace(bare, points=tuple(calibrate(device, dtypes, effort=QUICK)))
        with suppress(OSError):
            write_table(found, path)
    return found


def _kept(path: Path, device: str, processes: int = 1) -> Table | None:
    """A table that was written here before, and still holds."""
    with suppress(OSError, TableError):
        found = read_table(path)
        return found if fits(found, device, processes) else None
    return None


def bare_table(device: str, rates: list[Rates]) -> Table:
    """A machine's figures without a point."""
    first = rates[0]
    machine = Machine(
        {DType(one.dtype): one.flops_per_s for one in rates}, first.elementwise_per_s, first.bandwidth_bytes_per_s,
        first.launch_s,
    )  # fmt: skip
    threads = torch.get_num_threads()
    return Table(device_name(device), torch.__version__, threads, memory_bytes(device), machine, probes=PROBES)


def memory_bytes(device: str) -> int:
    """How much a device holds."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(device)).total_memory
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal"):
                return 1024 * int(line.split()[1])
    return 0
