"""The question that a layout answers, as texts of a build folder: so that it can be asked again, and asked why.

In: a decision. Out: the graph before it was laid out, and as JSON the mesh, the wishes and the machines that it was
priced on. Read back, they give the same decision; neither the spec nor what it uses is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..cost.cluster import Cluster, Level, Link, Message
from ..cost.host import Host
from ..cost.roofline import Machine
from ..ir.layout import Mesh
from ..ir.parse import parse_graph
from ..ir.text import print_graph
from ..ir.types import DType
from .choices import Wishes
from .decide import Decision, decide

GRAPH, QUESTION = "layout/step.graph", "layout/question.json"
_FORMAT = 5


class NotKept(Exception):
    """The texts are not what `files` wrote."""


def files(decision: Decision) -> dict[str, str]:
    """The texts, by name."""
    cluster, wishes = decision.program.prices.cluster, decision.wishes
    machine = cluster.machine
    said = {
        "format": _FORMAT,
        "mesh": decision.mesh.axes,
        "pins": {name: list(axes) for name, axes in wishes.pins.items()},
        "zero": wishes.zero,
        "sparing": wishes.sparing,
        "memory_bytes": decision.program.memory_bytes,
        "flying": decision.program.flying,
        "cluster": {
            "machine": {
                "flops_per_s": {dtype.value: rate for dtype, rate in machine.flops_per_s.items()},
                "elementwise_per_s": machine.elementwise_per_s,
                "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s,
                "launch_s": machine.launch_s,
            },
            "memory_bytes": cluster.memory_bytes,
            "levels": [asdict(level) for level in cluster.levels],
            "messages": [asdict(message) for message in cluster.messages],
            "host": asdict(cluster.host),
            "abreast": cluster.abreast,
            "bucket_bytes": cluster.bucket_bytes,
        },
    }
    return {GRAPH: print_graph(decision.before), QUESTION: json.dumps(said, indent=1) + "\n"}


def asked_again(texts: Mapping[str, str]) -> Decision:
    """The decision that the texts lead to. Raises NotKept for texts that are none, SpecError as `decide`."""
    try:
        said: dict[str, Any] = json.loads(texts[QUESTION])
        if said["format"] != _FORMAT:
            raise NotKept(f"its layout is of format {said['format']}, not {_FORMAT}")
        mesh = Mesh(tuple((str(name), int(size)) for name, size in said["mesh"]))
        pins = {str(name): tuple(map(str, axes)) for name, axes in said["pins"].items()}
        cluster, memory = _cluster(said["cluster"]), said["memory_bytes"]
        wishes, flying = Wishes(pins, said["zero"], sparing=bool(said["sparing"])), float(said["flying"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise NotKept(f"its layout cannot be read: {fault!r}") from None
    return decide(parse_graph(texts[GRAPH], GRAPH), mesh, cluster, wishes, memory, flying=flying)


def _cluster(said: Mapping[str, Any]) -> Cluster:
    machine = dict(said["machine"])
    rates = {DType(name): float(rate) for name, rate in machine.pop("flops_per_s").items()}
    levels: Sequence[Mapping[str, Any]] = said["levels"]
    return Cluster(
        Machine(rates, **machine),
        int(said["memory_bytes"]),
        tuple(Level(int(level["members"]), Link(**level["link"])) for level in levels),
        tuple(Message(**message) for message in said["messages"]),
        Host(**said["host"]),
        said["abreast"],
        int(said["bucket_bytes"]),
    )
