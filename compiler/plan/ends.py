"""What stages tell one another once a step, after the microbatches: sums that several of them have terms of.

In: a choice, the parts of its blocks, where chunks begin and end, the cluster. Out: seconds. A gradient of a parameter
that blocks of several devices read goes to and fro between each of them and the first; the loss and the gradients' norm
are joined along the axes that have terms of them (`schedule/step_end.py` writes both into the programs).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..cost.cluster import Cluster
from ..ir.layout import PIPE
from ..partition.choices import DATA
from ..schedule.forms import parse_form
from .parts import Part
from .space import Choice

SCALAR_BYTES = 4


def told_s(choice: Choice, cluster: Cluster) -> float:
    """Seconds until all know the loss, which the last stage alone has, and the gradients' norm, of which each stage,
    and with ZeRO each part of `data`, has a term."""
    along = [PIPE, PIPE] if choice.pipe > 1 else []
    along += [DATA] if choice.data > 1 and choice.zero else []
    told = sum(cluster.collective_s("all_reduce", SCALAR_BYTES, choice.mesh, axis) for axis in along)
    return told * cluster.share(choice.devices)


def tied_s(choice: Choice, parts: Sequence[Part], cuts: Sequence[tuple[int, int]], cluster: Cluster) -> list[float]:
    """For each chunk the seconds in which gradients of parameters that several devices have are on their way."""
    found = [0.0] * len(cuts)
    if not any(part.tied for part in parts):
        return found
    placement, link = parse_form(choice.schedule).placement(choice.pipe), cluster.link(choice.mesh, PIPE)
    first: dict[str, int] = {}
    told: set[tuple[str, int, int]] = set()  # of a block's parameters of a size: which device has told it of them
    for chunk, (begin, end) in enumerate(cuts):
        for part in parts[begin:end]:
            first.setdefault(part.name, chunk)
            for name, size in part.tied:
                there, here = first[name], placement[chunk]
                if placement[there] != here and (name, size, here) not in told:
                    told.add((name, size, here))
                    seconds = link.latency_s + size / link.bandwidth_bytes_per_s
                    found[there] += seconds
                    found[chunk] += seconds
    return found
