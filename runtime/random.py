"""Randomness by counters: a value follows from (seed, step, key, element) alone, whatever the plan and the history.

The torch side of the hash that `compiler/ops/hashing.py` defines in numpy (tests hold them equal): 32-bit words in i32
lanes, where + and * wrap. Initial values of parameters are its normal or uniform draws at step 0, keyed by the path; so
every plan starts from the same weights, and a device can make its shard without the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from .fault import RuntimeFault
from .program import Initializer

CHUNK = 1 << 15  # elements made at once: in the cache, and too few for torch to bring in threads of its own
UNIFORM_STREAM, GAUSSIAN_STREAMS = 0, (1, 2)
_HALF, _WORDS = 1 << 31, 1 << 32

Words = tuple[int, int]
Keys = tuple[torch.Tensor, torch.Tensor]
Scalar = int | torch.Tensor  # an integer, or a tensor of one i64


def key_words(text: str) -> Words:
    """The two words that stand for a key's text: FNV-1a with two bases."""
    return _text_hash(text, 0x811C9DC5), _text_hash(text, 0x5BD1E995)


def _text_hash(text: str, word: int) -> int:
    for byte in text.encode():
        word = ((word ^ byte) * 0x01000193) % _WORDS
    return word


def lane(word: int) -> int:
    """A word, taken modulo 2^32, as the i32 that has its bits."""
    return (word + _HALF) % _WORDS - _HALF


def mix(h: torch.Tensor) -> torch.Tensor:
    """Every bit of the i32 lanes into every bit of the result, in place."""
    h ^= (h >> 16).bitwise_and_(0xFFFF)
    h *= 0x21F0AAAD
    h ^= (h >> 15).bitwise_and_(0x1FFFF)
    h *= 0x735A2D97
    h ^= (h >> 15).bitwise_and_(0x1FFFF)
    return h


def fold(key: Keys, word: torch.Tensor) -> Keys:
    """One more coordinate (i32 lanes) into a key; tensors broadcast."""
    first, second = mix(word + lane(0x9E3779B9)), mix(word + lane(0x7F4A7C15))
    return mix(key[0] + first), mix(key[1] + second)


def row_keys(words: Words, seed: Scalar, step: Scalar, stream: int, rows: Sequence[torch.Tensor]) -> Keys:
    """The key of each row: seed, step and stream folded in, then its global coordinates (i64, one tensor a dim)."""
    device = rows[0].device if rows else None
    scalar = [torch.as_tensor(value, dtype=torch.int64, device=device) for value in (seed, step, stream)]
    key = tuple(torch.tensor(lane(word), dtype=torch.int32, device=scalar[0].device) for word in words)
    folded: Keys = (key[0], key[1])
    for word in (scalar[0], scalar[0] >> 32, *scalar[1:], *rows):
        folded = fold(folded, _lanes(word))
    return folded


def row_bits(keys: Keys, columns: torch.Tensor) -> torch.Tensor:
    """32 bits, in i32 lanes, of each element of rows (keys of shape […, 1] or []) at global columns (i64 [columns])."""
    bits = mix(keys[0] + mix(_lanes(columns) + lane(0x9E3779B9)))
    bits ^= keys[1]
    return bits


def unit(bits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The upper 24 bits, which are shifted in place, as a number in [0, 1)."""
    return bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF).to(dtype).mul_(2.0**-24)


def box_muller(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """√(-2 ln(1 - u₁)) cos(2π u₂), in the memory of the operands (Box and Muller 1958)."""
    radius = first.neg_().add_(1.0).log_().mul_(-2.0).sqrt_()
    return second.mul_(2 * math.pi).cos_().mul_(radius)


def _lanes(words: torch.Tensor) -> torch.Tensor:
    """i64 words modulo 2^32 as i32 lanes."""
    return ((words + _HALF) % _WORDS - _HALF).to(torch.int32)


# ---- initial values


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

    Drawn in float64 on the CPU and then rounded, whatever the model's type, so that neither a vector unit's last bit
    nor the device shows. Raises `RuntimeFault` E0522 for an unknown kind; `draw_of` says the kinds.
    """
    offsets, sizes = tuple(offsets or (0,) * len(shape)), tuple(shape if sizes is None else sizes)
    assert len(offsets) == len(sizes) == len(shape), f"a block of {len(sizes)} dims in a tensor of {len(shape)}"
    constant = _constant_of(initializer)
    if constant is not None:
        return torch.full(sizes, constant, dtype=torch.float32)
    kind, scale = draw_of(initializer, shape)
    return _drawn(kind, scale, seed, path, offsets, sizes).view(sizes)


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


def draw_of(initializer: Initializer, shape: Sequence[int]) -> tuple[str, float]:
    """Which draw (`normal`, `uniform` in [-1, 1)) an initializer takes, and its scale.

    normal(std); uniform(bound) in [-bound, bound); kaiming([fan_in]) (He 2015: normal, std √(2 / fan_in), where
    fan_in is all dims but the last); xavier (Glorot 2010: uniform, bound √(6 / (fan_in + fan_out)), fan_out the last).
    """
    fan_in = max(1, math.prod(shape[:-1]))
    match initializer.kind, initializer.arguments:
        case ("normal" | "uniform") as kind, (scale,):
            return kind, scale
        case "kaiming", ():
            return "normal", math.sqrt(2 / fan_in)
        case "kaiming", (given,):
            return "normal", math.sqrt(2 / given)
        case "xavier", ():
            return "uniform", math.sqrt(6 / (fan_in + (shape[-1] if shape else 1)))
        case kind, arguments:
            raise RuntimeFault("E0522", f"no initializer {kind}{arguments}")


def _drawn(
    kind: str, scale: float, seed: int, path: str, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> torch.Tensor:
    """A block as [rows, columns], its columns being the last dim, drawn in pieces of about CHUNK elements."""
    rows = _row_coordinates(offsets[:-1], sizes[:-1])
    columns = torch.arange(sizes[-1]) + offsets[-1] if sizes else torch.zeros(1, dtype=torch.int64)
    streams = GAUSSIAN_STREAMS if kind == "normal" else (UNIFORM_STREAM,)
    keys = [row_keys(key_words(path), seed, 0, stream, rows) for stream in streams]
    keys = [(a.expand(math.prod(sizes[:-1]))[:, None], b.expand(math.prod(sizes[:-1]))[:, None]) for a, b in keys]
    result = torch.empty(math.prod(sizes[:-1]), len(columns), dtype=torch.float32)
    width = max(1, min(len(columns), CHUNK))
    height = max(1, CHUNK // width)

    def fill(corner: tuple[int, int]) -> None:
        top, left = slice(corner[0], corner[0] + height), slice(corner[1], corner[1] + width)
        units = [unit(row_bits((a[top], b[top]), columns[left]), torch.float64) for a, b in keys]
        drawn = box_muller(units[0], units[1]) if kind == "normal" else units[0].mul_(2.0).sub_(1.0)
        result[top, left] = drawn.mul_(scale)

    corners = [(top, left) for top in range(0, len(result), height) for left in range(0, len(columns), width)]
    if len(corners) <= 4:
        for corner in corners:
            fill(corner)
    else:  # torch lets go of the interpreter's lock: threads over pieces beat threads within them
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, corners))
    return result


def _row_coordinates(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """For each of these dims, the global coordinate of every row: i64 [rows]."""
    if not sizes:
        return []
    grids = torch.meshgrid(*(torch.arange(n) + o for o, n in zip(offsets, sizes, strict=True)), indexing="ij")
    return [grid.reshape(-1) for grid in grids]
