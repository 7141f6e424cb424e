"""Real processes as the devices of a mesh: a process group for each axis, rank by rank as the mesh counts.

In: a mesh and the process group that torchrun's environment made. Out: `Processes`, which carries a program's
collectives, and the `DeviceMesh` under which checkpoints say where a shard lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from .collectives import Processes, Way
from .fault import RuntimeFault
from .layout import AT, REPLICATE, Layout, Mesh, shard_position
from .program import Build, Send
from .state import Store, tensors_of


@dataclass(frozen=True, slots=True)
class Place:
    """This process's place: what carries collectives, and torch's own view of the same mesh."""

    processes: Processes
    device_mesh: DeviceMesh

    @property
    def rank(self) -> int:
        """Which device of the mesh this is."""
        return self.processes.rank

    def laid_out(self, build: Build, store: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same memory as DTensors: parts that know of what they are parts."""
        items = tensors_of(build)
        return {name: self._laid_out(tensor, items[name].shape, items[name].layout) for name, tensor in store.items()}

    def _laid_out(self, mine: torch.Tensor, shape: tuple[int, ...], layout: Layout) -> torch.Tensor:
        """Among the devices that have any of it; a tensor that this device alone has stays as it is."""
        names = self.processes.mesh.names
        cuts = {name: cut for name, cut in zip(names, layout, strict=False) if not cut.startswith(AT)}
        cuts = cuts if layout else dict.fromkeys(names, REPLICATE)
        if not cuts:
            return mine
        among = self.device_mesh if len(cuts) == len(names) else self.device_mesh[tuple(cuts)]
        placements = [Replicate() if cut == REPLICATE else Shard(shard_position(cut)) for cut in cuts.values()]
        strides = tuple(math.prod(shape[at + 1 :]) for at in range(len(shape)))
        return DTensor.from_local(mine, among, placements, run_check=False, shape=torch.Size(shape), stride=strides)


def store_of(place: Place | None, build: Build, store: Store) -> dict[str, torch.Tensor]:
    """The store as a checkpoint's writer and reader want it."""
    return dict(store) if place is None else place.laid_out(build, store)


def join_mesh(
    mesh: Mesh, device: torch.device, timeout_s: float | None = None, ways: Sequence[Way] = ()
) -> Place | None:
    """This process's place on a mesh; None where one device is all. Every process calls it.

    `timeout_s`: how long a process waits for another, over gloo; None: as torch does. `ways`: of messages, each of
    which is to have a group of its own (see `Processes`).

    Raises `RuntimeFault` E0531 if there are more or fewer processes than the mesh has devices.
    """
    there = dist.get_world_size() if dist.is_initialized() else 1
    if there != mesh.size:
        raise RuntimeFault(
            "E0531",
            f"the build is for a mesh of {mesh.size} devices, and there are {there} processes",
            f"start {mesh.size} processes (torchrun --nproc-per-node), or compile for a mesh of {there}",
        )
    if mesh.size == 1:
        return None
    made = init_device_mesh(
        device.type, mesh.sizes, mesh_dim_names=mesh.names, backend_override=_patience(mesh, device, timeout_s)
    )
    groups = {name: made.get_group(name) for name in mesh.names}
    groups |= {name: _group(mesh, name) for name in mesh.lengths if name not in groups}
    apart = _connected(ways, device)
    return Place(Processes(mesh, dist.get_rank(), groups, device.type == "cpu", apart), made)


def ways_of(build: Build) -> tuple[Way, ...]:
    """All ways on which devices of a build send one another messages, in one order for all."""
    found: dict[Way, None] = {}
    for rank in range(build.mesh.size):
        sent = [i for one in build.programs_of(rank).values() for i in one.instructions() if isinstance(i, Send)]
        found |= {(i.axis, rank, build.mesh.along(rank, i.axis)[1][i.to], i.tag): None for i in sent}
    return tuple(found)


def _connected(ways: Sequence[Way], device: torch.device) -> dict[Way, dist.ProcessGroup]:
    """A group for each way. This process's are connected at once: a first message of NCCL's waits for its peer."""
    found: dict[Way, dist.ProcessGroup] = {}
    for way in ways:
        ends = {way[1], way[2]}
        group = dist.new_group(sorted(ends))
        if dist.get_rank() in ends:
            assert isinstance(group, dist.ProcessGroup), "a process is in its own group"
            dist.all_reduce(torch.zeros(1, device=device), group=group)
            found[way] = group
    return found


def _patience(mesh: Mesh, device: torch.device, timeout_s: float | None) -> dict[int | str, Any] | None:
    """How long each axis waits: groups that a mesh makes have torch's own time, whatever the first one was told."""
    if timeout_s is None or device.type != "cpu":
        return None
    options: Any = dist.ProcessGroupGloo._Options()  # pyright: ignore  # torch's stubs lack it
    options._timeout = timedelta(seconds=timeout_s)
    return dict.fromkeys(mesh.names, ("gloo", options))


def _group(mesh: Mesh, axis: str) -> dist.ProcessGroup:
    """The processes along a whole of which axes are factors. Every process makes every group, its own or not."""
    lines = dict.fromkeys(mesh.along(rank, axis)[1] for rank in range(mesh.size))
    made = {line: dist.new_group(line) for line in lines}
    mine = made[mesh.along(dist.get_rank(), axis)[1]]
    assert isinstance(mine, dist.ProcessGroup), "a process is in its own group"
    return mine


def agree(flag: bool) -> bool:
    """Whether any process says yes. Every process calls it; alone it is what was said."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    return highest(float(flag)) > 0


def highest(value: float) -> float:
    """The largest of what the processes say."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    said = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return float(said)


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0
