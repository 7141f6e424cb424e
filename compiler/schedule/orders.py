"""The schedules of the field: each a function from a shape to the order in which every device computes.

GPipe (Huang et al. 2019), 1F1B with a flush (Narayanan et al. 2021, PipeDream-Flush), interleaved 1F1B (the same paper,
section 2.2.2), zero bubble ZB-H1 (Qi et al. 2024, section 3.1); with token slices, GPipe is TeraPipe's (Li et al. 2021)
and 1F1B has the warm-up that leaves a whole microbatch's slices ahead. A new one is a function like these; `greedy.py`
finds orders where nobody knows a rule. Messages are added by `transfers.complete`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .actions import Action, Kind, Shape

Unit = tuple[int, int, int]  # (microbatch, chunk, slice)


def gpipe(shape: Shape) -> list[list[Action]]:
    """All forwards, then all backwards in reverse. Keeps every microbatch. Bubble (p - 1)(F + B)."""
    units = list(shape.units())
    return [
        [Action(Kind.FORWARD, m, d, s) for m, s in units] + [Action(Kind.BACKWARD, m, d, s) for m, s in reversed(units)]
        for d in range(shape.devices)
    ]


def forward_only(shape: Shape) -> list[list[Action]]:
    """Every microbatch through all chunks, nothing back: an evaluation."""
    return [
        [Action(Kind.FORWARD, m, c, s) for m, s in shape.units() for c in shape.chunks(d)] for d in range(shape.devices)
    ]


def one_f_one_b(shape: Shape) -> list[list[Action]]:
    """As few forwards ahead as keep the pipeline full, then one backward for each forward.

    Device d is p - 1 - d forwards ahead, and with S slices S - 1 more, because the first backward is of the last slice.
    Keeps at most p microbatches. The same bubble as GPipe.
    """
    ahead = max(shape.slices) - 1
    orders: list[list[Action]] = []
    for d in range(shape.devices):
        forwards = [(m, d, s) for m, s in shape.units()]
        backwards = [(m, d, s) for m, s in shape.backward_units()]
        orders.append(list(_alternate(forwards, backwards, shape.devices - 1 - d + ahead)))
    return orders


def interleaved(shape: Shape) -> list[list[Action]]:
    """1F1B over v chunks a device, laid round and round; microbatches go in groups that just fill the pipeline.

    A group (p microbatches; with slices fewer) passes through a device's chunk before the next chunk takes it up.
    Bubble (p - 1)(F + B) / v where p divides m. Where the last group is not full, or a microbatch has fewer slices
    than others, places stay empty: orders that wait for nobody for ever do not when something is left out of all of
    them.
    """
    p, v, most = shape.devices, len(shape.placement) // shape.devices, max(shape.slices)
    size = -(-p // most)
    groups = [range(g, g + size) for g in range(0, shape.microbatches, size)]
    ahead = (v - 1) * size * most + most - 1
    there = {(m, s) for m, s in shape.units()}
    orders: list[list[Action]] = []
    for d in range(p):
        chunks = shape.chunks(d)
        forwards = [(m, c, s) for g in groups for c in chunks for m in g for s in range(most)]
        backwards = [(m, c, s) for g in groups for c in reversed(chunks) for m in g for s in reversed(range(most))]
        order = _alternate(forwards, backwards, (1 if v == 1 else 2) * (p - 1 - d) + ahead)
        orders.append([action for action in order if (action.microbatch, action.slice) in there])
    return orders


def _alternate(forwards: Sequence[Unit], backwards: Sequence[Unit], ahead: int) -> Iterator[Action]:
    """Forwards with every backward `ahead` places behind."""
    for place in range(len(forwards) + ahead):
        if place < len(forwards):
            yield Action(Kind.FORWARD, *forwards[place])
        if 0 <= place - ahead < len(backwards):
            yield Action(Kind.BACKWARD, *backwards[place - ahead])


def zero_bubble(shape: Shape) -> list[list[Action]]:
    """ZB-H1: 1F1B with the backward in halves, the weights' half of device d delayed by d microbatches.

    So every device keeps p microbatches, as 1F1B's first does, and the delayed halves fill the gaps at the end.
    Bubble (p - 1)(F + B - W), B being the input's half; a third of 1F1B's where the three are equal.
    """
    orders: list[list[Action]] = []
    for d, plain in enumerate(one_f_one_b(shape)):
        order: list[Action] = []
        waiting: list[Action] = []
        for action in plain:
            if action.kind is Kind.FORWARD:
                order.append(action)
                continue
            order.append(action._replace(kind=Kind.INPUT))
            waiting.append(action._replace(kind=Kind.WEIGHT))
            if len(waiting) > d:
                order.append(waiting.pop(0))
        orders.append(order + waiting)
    return orders
