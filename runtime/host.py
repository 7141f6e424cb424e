"""The memory of a device's host: what an offloaded step keeps there, and the copies down to it and up from it.

In: tensors. Out: the same values in the other memory, there once they are waited for. On CUDA the host's memory is
pinned and copies run on streams of their own, beside the computation. On the CPU the device is a virtual one: what lies
on the host is memory that torch's allocator has no part in, so that its events count the device alone.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

HOST_RUN = "partita.host"  # as a profile names what runs on the host


@dataclass(frozen=True, slots=True)
class Arrived:
    """A copy that is made at once."""

    tensor: torch.Tensor

    def ready(self) -> bool:
        return True

    def results(self) -> Sequence[torch.Tensor]:
        return [self.tensor]


@dataclass(frozen=True, slots=True)
class Arriving:
    """A copy on a stream of its own. Down to the host, whoever asks waits; up from it, the device's own stream does."""

    tensor: torch.Tensor
    event: torch.Event

    def ready(self) -> bool:
        return True

    def results(self) -> Sequence[torch.Tensor]:
        if self.tensor.is_cuda:
            torch.cuda.current_stream(self.tensor.device).wait_event(self.event)
        else:
            self.event.synchronize()
        return [self.tensor]


@dataclass(slots=True)
class Host:
    """One device's host. Beside the CPU, `bytes` are alive in buffers of a run, and `peak_bytes` were at the most; what
    is pinned beside CUDA torch counts itself (`torch.cuda.host_memory_stats`)."""

    bytes: int = 0
    peak_bytes: int = 0
    streams: dict[tuple[int, bool], torch.cuda.Stream] = field(
        default_factory=dict[tuple[int, bool], torch.cuda.Stream]
    )

    def down(self, tensor: torch.Tensor) -> Arrived | Arriving:
        """To the host."""
        return self._copied(tensor, self.like(tensor, tensor.device), tensor.device, down=True)

    def up(self, tensor: torch.Tensor, device: torch.device) -> Arrived | Arriving:
        """To the device."""
        into = torch.empty_strided(tensor.shape, strides_of(tensor), dtype=tensor.dtype, device=device)
        return self._copied(tensor, into, device, down=False)

    def kept(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """What was computed on the device's host, in its own memory."""
        return self.like(tensor, device).copy_(tensor)

    def like(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Memory of a device's host for a tensor, with its strides where they leave no gaps, whatever is there."""
        shape, strides = tensor.shape, strides_of(tensor)
        if device.type == "cuda":
            return torch.empty_strided(shape, strides, dtype=tensor.dtype, pin_memory=True)
        size = math.prod(shape) * tensor.element_size()
        array = np.empty(max(size, 1), np.uint8)
        weakref.finalize(array, self._gone, size)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        return torch.from_numpy(array)[:size].view(tensor.dtype).as_strided(shape, strides)

    def _gone(self, size: int) -> None:
        self.bytes -= size

    def _copied(
        self, tensor: torch.Tensor, into: torch.Tensor, device: torch.device, *, down: bool
    ) -> Arrived | Arriving:
        if device.type != "cuda":
            return Arrived(into.copy_(tensor))
        beside = self.streams.setdefault((device.index or 0, down), torch.cuda.Stream(device))
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            into.copy_(tensor, non_blocking=True)
        (tensor if down else into).record_stream(beside)
        return Arriving(into, beside.record_event())


def strides_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A copy's strides: the tensor's own where they leave no gaps, else in the order of the axes."""
    if torch.ops.aten.is_non_overlapping_and_dense(tensor):
        return tuple(tensor.stride())
    return tuple(math.prod(tensor.shape[at + 1 :]) for at in range(tensor.ndim))
