"""`--cluster`: the machines that a step's time is foretold for, and that layouts are priced on.

In: `h100` (a record of specs/clusters, or of the spec at hand), `FILE.partita` or `FILE.partita:NAME` with the table
that `partita calibrate` wrote beside it, or `here`: this machine as so many processes have timed it (`here:4`: four; as
many as it has cores where none are said, else as many as there were). Out: a `Cluster`; of `here` its kernels too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..compiler.base.diagnostic import did_you_mean
from ..compiler.clusters import KIND, cluster_named, cluster_of
from ..compiler.cost.cluster import Cluster
from ..compiler.cost.table import Table, TableError, read_table
from ..compiler.elaborate.load import Spec
from .fault import CommandFault
from .specs import open_spec

HERE = "here"
MOST_PROCESSES = 64
HELP = "the machines: of specs/clusters, FILE.partita:NAME, or `here` (`here:4`), as calibrated; else the recipe's"


def add_cluster(parser: argparse.ArgumentParser, help_: str = HELP) -> None:
    """--cluster."""
    parser.add_argument("--cluster", metavar="NAME", help=help_)


def cluster_from(word: str, spec: Spec | None = None) -> Cluster:
    """What `--cluster` names. Raises CommandFault where there is none, SpecError for a faulty record."""
    table = here(word)
    if table is not None:
        return table.cluster()
    path, colon, own = word.rpartition(":")
    if not word.endswith(".partita") and not colon:
        return cluster_named(word, spec)
    path = path if colon else word
    opened = open_spec(path)
    found = [key for kind, key in opened.records if kind == KIND]
    wanted = own if colon else next(iter(found), "")
    if wanted not in found:
        hint = did_you_mean(wanted, found) or f"there are {', '.join(found)}"
        raise CommandFault(f"{path} has no cluster `{wanted}`", hint if found else "")
    return _as_timed(cluster_of(opened, wanted), Path(path).with_suffix(".json"))


def _as_timed(cluster: Cluster, beside: Path) -> Cluster:
    """With the messages that were timed among its devices, where the file beside the record has them."""
    if not beside.is_file():
        return cluster
    try:
        return replace(cluster, messages=read_table(beside).cluster().messages)
    except (OSError, TableError) as fault:
        raise CommandFault(f"{beside} cannot be read: {fault}", "partita calibrate writes it anew") from fault


def is_here(word: str | None) -> bool:
    """Whether this machine is meant."""
    return word is not None and word.partition(":")[0] == HERE


def here(word: str | None) -> Table | None:
    """What this machine's processes have timed, where it is meant. Raises CommandFault where they have not."""
    if word is None or not is_here(word):
        return None
    from .calibration import cores, table_here  # torch: late

    count = word.partition(":")[2]
    if count and not (count.isdecimal() and 2 <= int(count) <= MOST_PROCESSES):
        raise CommandFault(f"`{word}`: from 2 to {MOST_PROCESSES} processes", "here:2")
    wanted = [int(count)] if count else [cores(), *range(MOST_PROCESSES, 1, -1)]
    found = next((table for number in wanted if (table := table_here("cpu", number)) is not None), None)
    if found is None:
        raise CommandFault("this machine's messages were never timed", f"partita calibrate --processes {count or 2}")
    return found
