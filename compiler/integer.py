"""Integer programs, solved by HiGHS (Huangfu and Hall 2018): least cost, rows between bounds, some columns whole.

    minimise c·x  subject to  low ≤ A x ≤ high,  least ≤ x ≤ most,  x[i] whole for some i

In: the program row by row. Out: the best x, its cost, and a bound that nothing is below. The linear relaxation keeps
its basis between calls, so that a second question about one program costs few steps. One thread, and a search that is
ended by its work and by no clock: the same program gives the same answer, on a slow machine and on a busy one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = tuple[Sequence[int], Sequence[float], float, float]  # columns, their coefficients, least, most
INFINITE = float("inf")
_LARGE = 50_000  # coefficients
_PATIENCE = 50_000  # steps of the simplex on a relaxation that begins from the last basis; some never end


@dataclass(frozen=True, slots=True)
class Answer:
    """x: the best that was found, or None. value: its cost. bound: no x costs less. proven: whether x is the best, to
    the gap that was asked for; where there is no x, whether there can be none."""

    x: NDArray[Any] | None
    value: float
    bound: float
    proven: bool


@dataclass
class Integer:
    """A program. whole: the columns from `whole[0]` to before `whole[1]` are whole numbers."""

    costs: Sequence[float]
    rows: Sequence[Row]
    whole: tuple[int, int]
    most: NDArray[Any] | None = None
    _relaxed: Any = field(default=None, init=False, repr=False)

    def relaxed(self, least: NDArray[Any]) -> Answer:
        """The best x if no column need be whole."""
        if self._relaxed is None:
            self._relaxed = _solver()
            # The programs of layouts: half the time of a presolved run, which cannot begin from the last basis.
            self._relaxed.setOptionValue("presolve", "off")
            self._relaxed.setOptionValue("simplex_iteration_limit", _PATIENCE)
            self._relaxed.passModel(self._model(least, False))
        else:
            count = len(self.costs)
            columns = _indices(range(count))
            self._relaxed.changeColsBounds(count, columns, least, self._most())
        found = self._run(self._relaxed)
        if found.x is not None or found.proven:
            return found
        again = _solver()  # without presolve it can go round in circles
        again.passModel(self._model(least, False))
        return self._run(again)

    def best(
        self, least: NDArray[Any], *, start: Answer | None = None, presolve: bool = True, gap: float = 1e-7,
        work: float = INFINITE,
    ) -> Answer:  # fmt: skip
        """The best x, looked for from `start` on, until it is within `gap` of the bound or the work is done: at each of
        its rounds the solver has done as much as the rows have coefficients, of large programs more. A quiet core does
        a million a second, or some millions."""
        highs = _solver()
        highs.setOptionValue("presolve", "on" if presolve else "off")
        highs.setOptionValue("mip_rel_gap", gap)
        highs.passModel(self._model(least, True))
        if work < INFINITE:
            highs.cbMipInterrupt += _Rounds(self._rounds(work))
        if start is not None and start.x is not None:
            highs.setSolution(len(self.costs), _indices(range(len(self.costs))), start.x)
        return self._run(highs)

    # ---- to HiGHS and back

    def _rounds(self, work: float) -> int:
        """In which so much is done. A round of a program beyond `_LARGE` takes more than in proportion: of 346,000
        coefficients 1.5 s, of 64,000 at most 0.07 s."""
        size = max(1, self._coefficients)
        return int(work / size * min(1.0, _LARGE / size))

    @property
    def _coefficients(self) -> int:
        return sum(len(row[0]) for row in self.rows)

    @property
    def _scale(self) -> float:
        return max(map(abs, self.costs), default=1.0) or 1.0

    def _most(self) -> NDArray[Any]:
        import numpy as np

        return np.full(len(self.costs), INFINITE) if self.most is None else self.most

    def _model(self, least: NDArray[Any], whole: bool) -> Any:
        import highspy
        import numpy as np  # late: loading it takes a fifth of checking a spec

        lp: Any = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.costs), len(self.rows)
        lp.col_cost_ = np.asarray(self.costs, float) / self._scale
        lp.col_lower_, lp.col_upper_ = least, self._most()
        lp.row_lower_, lp.row_upper_ = (np.asarray([row[at] for row in self.rows], float) for at in (2, 3))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = _indices(np.cumsum([0, *(len(row[0]) for row in self.rows)]))
        lp.a_matrix_.index_ = _indices([column for row in self.rows for column in row[0]])
        lp.a_matrix_.value_ = np.asarray([value for row in self.rows for value in row[1]], float)
        if whole:
            first, last = self.whole
            kinds = highspy.HighsVarType
            lp.integrality_ = [
                kinds.kInteger if first <= column < last else kinds.kContinuous for column in range(len(self.costs))
            ]
        return lp

    def _run(self, highs: Any) -> Answer:
        import highspy
        import numpy as np

        highs.run()
        status, info = highs.getModelStatus(), highs.getInfo()
        kinds = highspy.HighsModelStatus
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            proven = status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible)
            return Answer(None, INFINITE, INFINITE if proven else -INFINITE, proven)
        proven = status == kinds.kOptimal
        value = info.objective_function_value
        bound = info.mip_dual_bound if info.mip_node_count >= 0 else value
        return Answer(np.asarray(highs.getSolution().col_value), value * self._scale, bound * self._scale, proven)


@dataclass
class _Rounds:
    """Called back at every round of a search, which it ends after some."""

    most: int
    done: int = 0

    def __call__(self, event: Any) -> None:
        self.done += 1
        if self.done > self.most:
            event.interrupt()


def _solver() -> Any:
    import highspy  # late, as numpy is

    highs: Any = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("parallel", "off")):
        highs.setOptionValue(option, value)
    return highs


def _indices(values: Any) -> NDArray[Any]:
    import numpy as np

    return np.asarray(values, np.int32)
