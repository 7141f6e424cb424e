"""Sorted rows sent to the devices that hold what they are sorted by, and back: tokens to their experts.

In: an all-to-all whose collective has `groups`, and what one device brings. Rows lie after the dims of the lists that
they stand in, `[lists.., rows, ..]`, sorted in each list by ids `[lists.., rows]` of the groups. A device of the axis
has a chunk of one list dim and all rows, or all lists and the rows of its chunk of the groups. Out: the pieces for
every device, how large those will be that come, and what is made of them. How many rows go where the ids alone say:
where a device has room for more than it has, ids beyond the groups stand, and 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .layout import chunk
from .program import Collective
from .program import Rows as RowsOfWhole


@dataclass(frozen=True, slots=True)
class Rows:
    """What one device sends and expects: it is number `at` of `count`.

    pieces    for every device, in order: its rows, row after row; of ids how many there are of each of its groups
    expected  how many elements come from every device
    places    where they go: for every device in order, or (one mask) for all together
    """

    sent: Collective
    at: int
    count: int
    pieces: list[torch.Tensor]
    expected: list[int]
    places: list[torch.Tensor]

    def arrived(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The result of what came, in the order of the axis."""
        lists = self.sent.join if away(self.sent) else self.sent.dims[0]
        shape = self.sent.shapes[0]
        front = [shape[lists], *shape[:lists], *shape[lists + 1 :]]
        if len(self.sent.inputs) == 1:
            found = self._ids([piece.view(-1, *front[1:-1], self._groups(self.at)) for piece in pieces], front[-1])
        else:
            front[: self.places[0].dim()] = (front[0], *self.places[0].shape[1:])
            found = pieces[0].new_zeros(front)
            width = front[self.places[0].dim() :]
            whole = [torch.cat(list(pieces))] if len(self.places) == 1 else pieces
            for place, piece in zip(self.places, whole, strict=True):
                if piece.numel():
                    found[place] = piece.view(-1, *width)
        return found.movedim(0, lists).contiguous()

    def _groups(self, at: int) -> int:
        return chunk(self.sent.groups, self.count, at)[1]

    def _ids(self, counts: Sequence[torch.Tensor], room: int) -> torch.Tensor:
        """Ids of so many rows of each group, ascending; beyond them the number of groups."""
        ends = torch.cat(list(counts)).cumsum(-1)
        room = longest(ends[..., -1], room)
        place = torch.arange(room, device=ends.device).expand(*ends.shape[:-1], room).contiguous()
        first = chunk(self.sent.groups, self.count, self.at)[0]
        ids = first + torch.searchsorted(ends.contiguous(), place, right=True)
        return torch.where(place < ends[..., -1:], ids, self.sent.groups)


def longest(counts: torch.Tensor, room: int) -> int:
    """Of how many rows each list has place: as many as the longest has; of no lists, any number."""
    return int(counts.max()) if counts.numel() else room


def cut_rows(rule: RowsOfWhole, at: int, count: int, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The own rows of each list in front, beside them 0 (of ids the number of groups); or all of them put back."""
    low, size = chunk(rule.groups, count, at)
    mine = (ids >= low) & (ids < low + size)
    counts = mine.sum(-1, keepdim=True)
    if rule.back:
        found = x.new_zeros((*ids.shape, *x.shape[ids.dim() :]))
        found[mine] = x[torch.arange(x.shape[ids.dim() - 1], device=x.device) < counts]
        return found
    room = longest(counts, rule.shape[ids.dim() - 1])
    beside = rule.groups if rule.input == rule.ids else 0
    found = x.new_full((*ids.shape[:-1], room, *x.shape[ids.dim() :]), beside)
    found[torch.arange(room, device=x.device) < counts] = x[mine]
    return found


def away(sent: Collective) -> bool:
    """Whether rows go to their groups, or come back from them."""
    return sent.dims[0] > sent.join


def begun(sent: Collective, at: int, count: int, operands: Sequence[torch.Tensor]) -> Rows:
    """What a device sends and expects. Operands: ids alone; or what is sent, with its ids before and after."""
    lists = sent.join if away(sent) else sent.dims[0]
    x, *ids = (operand.movedim(lists, 0) for operand in operands)
    owners = [chunk(sent.groups, count, i) for i in range(count)]
    if not ids:
        known = torch.arange(sent.groups, device=x.device)
        counts = (x.unsqueeze(-1) == known).sum(-2)
        pieces = [counts[..., low : low + size].reshape(-1) for low, size in owners]
        each = math.prod(x.shape[1:-1]) * owners[at][1]
        return Rows(sent, at, count, pieces, [chunk(sent.join_size, count, i)[1] * each for i in range(count)], [])
    whole, part = ids if away(sent) else reversed(ids)
    mine = [(whole >= low) & (whole < low + size) for low, size in owners]
    here = part < sent.groups
    cuts = [chunk(sent.join_size if away(sent) else sent.sizes[0], count, i) for i in range(count)]
    among = [here[low : low + size] for low, size in cuts]
    width = math.prod(x.shape[whole.dim() :])
    if away(sent):
        pieces, expected, places = [x[mask].reshape(-1) for mask in mine], among, [here]
    else:
        pieces = [x[low : low + size][mask].reshape(-1) for (low, size), mask in zip(cuts, among, strict=True)]
        expected, places = mine, mine
    return Rows(sent, at, count, pieces, [int(mask.sum()) * width for mask in expected], places)
