"""Quantities as people read them: 124.4M, 1.53 GiB, 12.3 ms.

In: plain numbers in base units. Out: short text with three significant digits. Exact figures belong into `--json`.
"""

from __future__ import annotations

SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def compact(number: float, giga: str = "B") -> str:
    """A count: 980, 50.3k, 124M, 175B (or `G` before a unit)."""
    for scale, letter in SCALES:
        if abs(number) >= 0.9995 * scale:
            return f"{number / scale:.3g}{giga if letter == 'G' else letter}"
    return f"{number:.3g}" if number != int(number) else str(int(number))


def flops_text(flops: float) -> str:
    """Operations: `291 GFLOP`."""
    text = compact(flops, "G")
    return f"{text[:-1]} {text[-1]}FLOP" if text[-1].isalpha() else f"{text} FLOP"


def bytes_text(count: float) -> str:
    """Memory in powers of 1024: `1.53 GiB`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(count) >= 0.9995 * 1024**power:
            return (
                f"{count / 1024**power:.4g} {unit}"
                if count >= 1000 * 1024**power
                else f"{count / 1024**power:.3g} {unit}"
            )
    return f"{int(count)} B"


def seconds_text(seconds: float) -> str:
    """A duration: `12.3 ms`, `4.1 s`, `2 min 05 s`, `3 h 20 min`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
