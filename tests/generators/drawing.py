"""What makers of operands draw with: dims in random order, arrays, ids, starts.

In: a numpy generator. Out: operand types and arrays, collected. Sizes are odd, prime or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from partita.compiler.ir.types import Attr, Dim, Dims, DType, TensorType
from partita.compiler.ops.definition import Array

SIZES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Case:
    """One application of an operator, with values."""

    op: str
    types: tuple[TensorType, ...]
    arrays: tuple[Array, ...]
    attrs: Mapping[str, Attr]


@dataclass
class Maker:
    """Draws dims and arrays, and collects the operands."""

    random: np.random.Generator
    made: int = 0
    types: list[TensorType] = field(default_factory=list[TensorType])
    arrays: list[Array] = field(default_factory=list[Array])

    def dim(self, size: int | None = None) -> Dim:
        self.made += 1
        return Dim("ABCDEFGHJKLMNPQ"[self.made - 1], int(self.random.choice(SIZES)) if size is None else size)

    def dims(self, least: int = 0, most: int = 3) -> Dims:
        return tuple(self.dim() for _ in range(int(self.random.integers(least, most + 1))))

    def shuffled(self, dims: Sequence[Dim]) -> Dims:
        return tuple(dims[i] for i in self.random.permutation(len(dims)))

    def some(self, dims: Sequence[Dim]) -> Dims:
        """A subset, in some order."""
        return tuple(d for d in self.shuffled(dims) if self.random.random() < 0.6)

    def coin(self) -> bool:
        return bool(self.random.random() < 0.5)

    def _add(self, dims: Dims, dtype: DType, array: Array) -> None:
        self.types.append(TensorType(dims, dtype))
        self.arrays.append(array)

    def floats(self, *dims: Dim, positive: bool = False, apart: bool = False) -> None:
        """Normal numbers; `apart` keeps them off the integers, where floor jumps."""
        drawn = self.random.normal(size=shape(dims))
        drawn = 0.5 + np.abs(drawn) if positive else drawn
        if apart:
            drawn = np.floor(2 * drawn) + self.random.uniform(0.2, 0.8, size=shape(dims))
        self._add(dims, DType.F64, np.asarray(drawn))

    def truths(self, *dims: Dim) -> None:
        self._add(dims, DType.BOOL, np.asarray(self.random.random(shape(dims)) < 0.6))

    def ids(self, below: Dim, *dims: Dim) -> None:
        assert below.size is not None, "ids are below a size"
        self._add(dims, DType.I64, np.asarray(self.random.integers(0, below.size, shape(dims))))

    def starts(self, *values: int) -> None:
        for value in values:
            self._add((), DType.I64, np.asarray(value, dtype=np.int64))


def shape(dims: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(d.size if d.size is not None else 0 for d in dims)


Attrs = Mapping[str, Attr]
Make = Callable[[Maker], Attrs]
