"""`--cluster`: the machines that a step's time is foretold for, and that layouts are priced on.

In: `h100` (a record of specs/clusters, or of the spec at hand), `FILE.partita` or `FILE.partita:NAME` with the table
that `partita calibrate` wrote beside it, or `here`: this machine as it was calibrated. Out: a `Cluster`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..compiler.base.diagnostic import did_you_mean
from ..compiler.clusters import KIND, cluster_named, cluster_of
from ..compiler.cost.cluster import Cluster
from ..compiler.cost.table import TableError, read_table
from ..compiler.elaborate.load import Spec
from .fault import CommandFault
from .specs import open_spec

HERE = "here"
HELP = "the machines: of specs/clusters, FILE.partita:NAME, or `here`, as calibrated; else the recipe's"


def add_cluster(parser: argparse.ArgumentParser, help_: str = HELP) -> None:
    """--cluster."""
    parser.add_argument("--cluster", metavar="NAME", help=help_)


def cluster_from(word: str, spec: Spec | None = None) -> Cluster:
    """What `--cluster` names. Raises CommandFault where there is none, SpecError for a faulty record."""
    if word == HERE:
        return _here()
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
        return replace(cluster, messages=read_table(beside).messages)
    except (OSError, TableError) as fault:
        raise CommandFault(f"{beside} cannot be read: {fault}", "partita calibrate writes it anew") from fault


def _here() -> Cluster:
    from .calibration import cached, fits  # torch: late

    try:
        table = read_table(cached("cpu"))
    except (OSError, TableError):
        table = None
    if table is None or not fits(table, "cpu") or not table.messages:
        raise CommandFault("this machine's messages were never timed", "partita calibrate --processes 2")
    return table.cluster()
