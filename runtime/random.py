"""Initial values of parameters by a counter-based generator: a value follows from (seed, path, element) alone.

So every plan starts from the same weights, and a device can make its shard without the rest. Hash → uniform → normal
by Box and Muller (1958). Values are computed in float64 on the CPU and rounded to float32, whatever the model's type,
so that neither a vector unit's last bit nor the device shows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from .fault import RuntimeFault
from .program import Initializer

CHUNK = 1 << 15  # elements made at once: in the cache, and too few for torch to bring in threads of its own
_HIGH_BIT = 1 << 31


def mix32(value: torch.Tensor) -> torch.Tensor:
    """A bijective hash of i32 lanes taken as 32 bits, in place: C. Wellons' `lowbias32`, as in permutation.py."""
    value ^= (value >> 16) & 0xFFFF
    value *= _signed(0x7FEB352D)
    value ^= (value >> 15) & 0x1FFFF
    value *= _signed(0x846CA68B)
    value ^= (value >> 16) & 0xFFFF
    return value


def path_keys(seed: int, path: str) -> tuple[int, int, int, int]:
    """Four 32-bit keys of a parameter: two for each of the two draws of an element."""
    digest = hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=16).digest()
    first, second, third, fourth = (int.from_bytes(digest[at : at + 4], "little") for at in (0, 4, 8, 12))
    return first, second, third, fourth


def initial_values(
    initializer: Initializer,
    shape: Sequence[int],
    seed: int,
    path: str,
    *,
    offsets: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
) -> torch.Tensor:
    """float32 values of a tensor of global `shape`, or of its block of `sizes` that starts at `offsets`.

    Raises `RuntimeFault` E0522 for an unknown kind. See `scale_of` for the kinds that draw.
    """
    offsets, sizes = tuple(offsets or (0,) * len(shape)), tuple(shape if sizes is None else sizes)
    assert len(offsets) == len(sizes) == len(shape), f"a block of {len(sizes)} dims in a tensor of {len(shape)}"
    constant = _constant_of(initializer)
    if constant is not None:
        return torch.full(sizes, constant, dtype=torch.float32)
    draw, scale = scale_of(initializer, shape)
    keys = path_keys(seed, path)
    result = torch.empty(sizes, dtype=torch.float32)
    flat = result.view(-1)

    def fill(begin: int) -> None:
        end = min(begin + CHUNK, flat.numel())
        flat[begin:end] = draw(_elements(begin, end, shape, offsets, sizes), keys).mul_(scale)

    starts = range(0, flat.numel(), CHUNK)
    if len(starts) <= 4:
        for begin in starts:
            fill(begin)
    else:  # torch lets go of the interpreter's lock: threads over chunks beat threads within them
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, starts))
    return result


def _constant_of(initializer: Initializer) -> float | None:
    match initializer.kind, initializer.arguments:
        case "zeros", _:
            return 0.0
        case "ones", _:
            return 1.0
        case "constant", (value,):
            return value
        case _:
            return None


Draw = Callable[[torch.Tensor, tuple[int, int, int, int]], torch.Tensor]


def scale_of(initializer: Initializer, shape: Sequence[int]) -> tuple[Draw, float]:
    """Which draw an initializer takes, and its scale.

    normal(std); uniform(bound) in [-bound, bound); kaiming([fan_in]) (He 2015: normal, std √(2 / fan_in), where
    fan_in is all dims but the last); xavier (Glorot 2010: uniform, bound √(6 / (fan_in + fan_out)), fan_out the last).
    """
    fan_in = max(1, math.prod(shape[:-1]))
    match initializer.kind, initializer.arguments:
        case "normal", (std,):
            return normal, std
        case "uniform", (bound,):
            return symmetric, bound
        case "kaiming", ():
            return normal, math.sqrt(2 / fan_in)
        case "kaiming", (given,):
            return normal, math.sqrt(2 / given)
        case "xavier", ():
            return symmetric, math.sqrt(6 / (fan_in + (shape[-1] if shape else 1)))
        case kind, arguments:
            raise RuntimeFault("E0522", f"no initializer {kind}{arguments}")


def _elements(begin: int, end: int, shape: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Flat positions in the whole tensor of the elements begin … end-1 of a block: i64, or i32 where that is enough."""
    if tuple(shape) == tuple(sizes) and end < _HIGH_BIT:
        return torch.arange(begin, end, dtype=torch.int32)
    local = torch.arange(begin, end, dtype=torch.int64)
    position, stride = torch.zeros_like(local), 1
    for dim in reversed(range(len(shape))):
        position += (local % sizes[dim] + offsets[dim]) * stride
        local //= sizes[dim]
        stride *= shape[dim]
    return position


def normal(elements: torch.Tensor, keys: tuple[int, int, int, int]) -> torch.Tensor:
    """√(-2 ln u₁) cos(2π u₂), u₁ in (0, 1], u₂ in [0, 1): float64, mean 0, deviation 1."""
    radius = (_bits(elements, keys[0], keys[1]) + 1.0).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    return _bits(elements, keys[2], keys[3]).mul_(2.0**-32 * 2 * math.pi).cos_().mul_(radius)


def symmetric(elements: torch.Tensor, keys: tuple[int, int, int, int]) -> torch.Tensor:
    """Uniform in [-1, 1): float64."""
    return _bits(elements, keys[0], keys[1]).mul_(2.0**-31).sub_(1.0)


def _bits(elements: torch.Tensor, key: int, other: int) -> torch.Tensor:
    """Hashed bits of flat positions as float64 in [0, 2^32): mix(mix(mix(low ^ key) ^ high) ^ other), top bit flipped.

    The high word is mixed in only where there is one, so i32 and i64 positions agree.
    """
    narrow = elements.dtype == torch.int32
    low = elements if narrow else (elements & 0xFFFFFFFF).to(torch.int32)
    value = mix32(low ^ _signed(key))
    if not narrow and elements.numel() and int(elements.max()) >> 32:
        value = mix32(value ^ (elements >> 32).to(torch.int32))
    value = mix32(value ^ _signed(other))
    return value.to(torch.float64).add_(_HIGH_BIT)


def _signed(bits: int) -> int:
    """32 bits as the i32 that has them."""
    return bits - (1 << 32) if bits & _HIGH_BIT else bits
