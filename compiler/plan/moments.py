"""How high a device reaches while each of its blocks runs, beyond what lasts and what is kept until then.

In: the chain of parts, a choice. Out: bytes, block by block; and the update's. They follow the lowered program
(`lower/overlap.py`): blocks that are no layers and stand together are one segment; a segment's parameters are gathered
one ahead, its gradients are scattered when all of them are there; what several members share is packed; of a lone
microbatch, which has no sums, the gradients of one segment are on their way while the one before it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..cost.cluster import Cluster
from .courses import GATHERS_AT_A_TIME, together
from .parts import Part, Weights
from .space import Choice


@dataclass(frozen=True, slots=True)
class Segment:
    """Blocks whose messages go together, and the bytes of those.

    gathered    parameters that are whole while its forward runs; `behind`: its backward
    coming      of them what no block before it has, with what its messages are packed in; `returning`: in the backward
    whole       gradients before they are scattered; `scattering`: what a message of them takes beside; `flying`: with
                those that it sends
    """

    first: int = 0
    last: int = 0
    gathered: int = 0
    behind: int = 0
    coming: int = 0
    returning: int = 0
    whole: int = 0
    scattering: int = 0
    flying: int = 0


NOTHING = Segment()


def momentary(parts: Sequence[Part], choice: Choice, cluster: Cluster) -> list[int]:
    """For each block."""
    if choice.pipe > 1 and choice.zero < 2 and choice.microbatches > 1:  # `data` sends nothing within a microbatch
        return [part.momentary for part in parts]
    one, data = choice.microbatches == 1, choice.data > 1
    early = one and choice.pipe == 1 and data  # what the update would join goes while the backward goes on
    apart = data and (choice.zero >= 2 or (early and choice.zero == 1))
    packs = _packs(parts, cluster.bucket_bytes) if early and choice.zero == 0 else [0] * len(parts)
    waiting = [part.waiting if (apart or one) and choice.pipe == 1 else 0 for part in parts] + [0]
    found: list[int] = []
    chain = [NOTHING, *_segments(parts, choice, cluster), NOTHING, NOTHING]
    for before, own, behind, further in zip(chain, chain[1:], chain[2:], chain[3:], strict=False):
        flying = behind.flying if early and apart else 0
        whole = [owned(parts[at], choice).gradient_bytes for at in range(own.first, own.last + 1)]
        for at in range(own.first, own.last + 1):
            part, size = parts[at], whole.pop(0)
            made = part.making + (sum(whole) if apart else 0) if apart or one else part.momentary
            after = (parts[at - 1].crossing if at else 0) - part.kept + waiting[at]
            moments = [
                part.momentary + own.gathered + behind.coming,
                made + own.behind + before.returning + flying + waiting[at],
            ]
            if at == own.last and choice.zero == 3:
                left = behind.whole + further.flying if one else 0
                moments.append(part.crossing + own.returning + before.returning + left + waiting[at + 1])
            if at == own.first and apart:
                moments.append(after + own.whole + own.scattering + before.returning)
            if packs[at]:
                moments.append(after + packs[at] + size)
            found.append(max(moments))
    return found


def owned(part: Part, choice: Choice) -> Weights:
    """The weights that a block has of its own: those of another block of its device are there once."""
    return part.own if choice.pipe == 1 else part.weights


def _segments(parts: Sequence[Part], choice: Choice, cluster: Cluster) -> list[Segment]:
    """Each layer, and what stands together between layers."""
    found: list[Segment] = []
    known: dict[int, Segment] = {}
    layers = [at if part.name.rpartition(".")[2].isdecimal() else -1 for at, part in enumerate(parts)]
    for _, numbers in groupby(range(len(parts)), key=lambda at: layers[at]):
        here = list(numbers)
        weights = owned(parts[here[0]], choice)
        made = known.get(id(weights)) if len(here) == 1 else None
        if made is None:
            made = _segment([parts[at] for at in here], choice, cluster)
            known.update({id(weights): made} if len(here) == 1 else {})
        found.append(_at(made, here[0], here[-1]))
    return found


def _at(made: Segment, first: int, last: int) -> Segment:
    return Segment(
        first, last, made.gathered, made.behind, made.coming, made.returning, made.whole, made.scattering, made.flying
    )


def _segment(blocks: Sequence[Part], choice: Choice, cluster: Cluster) -> Segment:
    """What its messages take."""
    own = [owned(block, choice) for block in blocks]
    data, whole = choice.data, choice.zero == 3
    if data == 1:
        return NOTHING
    gradients = [-(-size // data) for one in own for size in one.gradients]
    limit, gloo = cluster.bucket_bytes, cluster.gloo
    sent = [_scattered(sizes, data, gloo) for sizes in together(gradients, limit)]
    read = [size for one in own for size in one.read]
    computed, behind = sum(one.computed for one in own), sum(one.behind for one in own)
    gathered = max(computed, *(block.weights.computed for block in blocks))
    again = max(behind, *(block.weights.behind for block in blocks))
    packed = sum(_packed(sizes, data, gloo) for sizes in together(read, limit))
    tied = [again - behind] if again > behind else []  # another block's, gathered for this one once more
    returning = again + sum(_packed(sizes, data, gloo) for sizes in together([*read, *tied], limit)) if again else 0
    return Segment(
        0, 0, whole * gathered, whole * again, whole * (computed + packed), whole * returning,
        sum(one.gradient_bytes for one in own), max((size for size, _ in sent), default=0),
        max((size for _, size in sent), default=0),
    )  # fmt: skip


def _packed(sizes: Sequence[int], data: int, gloo: bool) -> int:
    """What a gather of so many members holds beside them: several are packed, this device's parts and all. gloo sends
    each alone."""
    return sum(sizes) + sum(-(-size // data) for size in sizes) if len(sizes) > 1 and not gloo else 0


def _scattered(parts: Sequence[int], data: int, gloo: bool) -> tuple[int, int]:
    """What a scatter holds beside what it scatters, given the parts that it leaves; and with it. gloo holds the terms
    of all devices."""
    whole, own = data * sum(parts), sum(parts)
    beside = whole if gloo else own + (whole + own if len(parts) > 1 else 0)
    return beside, beside + whole


def _packs(parts: Sequence[Part], bucket_bytes: int) -> list[int]:
    """Of each block the pack of the gradients that are sent once it is done, with those of blocks behind it."""
    found, size, members = [0] * len(parts), 0, 0
    for at in range(len(parts) - 1, -1, -1):
        for gradient in parts[at].own.gradients:
            if size + gradient > bucket_bytes:
                size = members = 0
            size, members = size + gradient, members + 1
            found[at] = max(found[at], size if members > 1 else 0)
    return found


def updating(own: int, parts: Sequence[Part], choice: Choice, cluster: Cluster) -> int:
    """Of the update. own: what it computes with. Gradients are gone before parameters are gathered, two messages at a
    time; of several microbatches sums are joined now."""
    if choice.data == 1:
        return own
    weights = [owned(part, choice) for part in parts]
    most, bucket_bytes = own, cluster.bucket_bytes
    if choice.microbatches > 1 and choice.zero == 0:
        sums = [size for one in weights for size in one.gradients]
        most = max([most, *(sum(sizes) for sizes in together(sums, bucket_bytes) if len(sizes) > 1)])
    if choice.microbatches > 1 and choice.zero == 1:
        most = max([most, *(one.scattering for one in _segments(parts, choice, cluster))])
    if choice.zero in (1, 2):
        whole = choice.zero == 1 and choice.microbatches > 1
        gone = sum(one.gradient_bytes for one in weights) // (1 if whole else choice.data) // choice.pipe
        if GATHERS_AT_A_TIME * 2 * bucket_bytes - gone > most:  # a pack is no more than twice what goes in a message
            read = [size for one in weights for size in one.read]
            packs = sorted(_packed(sizes, choice.data, cluster.gloo) for sizes in together(read, bucket_bytes))
            most = max(most, sum(packs[-GATHERS_AT_A_TIME:]) - gone)
    return most
