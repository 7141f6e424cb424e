"""A device's host: what carries values down to it and up from it, and its memory, in which an offloaded update runs.

In: bytes and the seconds of the computation beside. Out: the seconds that are left to wait. Where no record says more,
PCI Express 3.0 with 16 lanes is meant, 15.75 GB/s each way, and of eight channels of DDR4-3200, 25.6 GB/s each, the
half of their 205 GB/s that a stream of reads and writes gets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """Of one device. link_bytes_per_s: each way. memory_bytes_per_s: its share, of reads and writes."""

    link_bytes_per_s: float = 15.75e9
    memory_bytes_per_s: float = 102e9

    def waiting_s(self, down: float, up: float, backward_s: float, forward_s: float) -> float:
        """What a step waits for copies: so many bytes go down beside the backward, and come up beside the forward.

        max(0, down / link - backward) + max(0, up / link - forward)
        """
        link = self.link_bytes_per_s
        return max(0.0, down / link - backward_s) + max(0.0, up / link - forward_s)

    def traffic_s(self, bytes_: float) -> float:
        """What the host reads and writes."""
        return bytes_ / self.memory_bytes_per_s


USUAL = Host()
