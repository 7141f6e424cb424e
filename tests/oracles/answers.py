"""What the checker answers to a text, and what the answer cost: the oracle of robustness.

In: the bytes of a spec. Out: an `Answer`: codes, CPU seconds, peak memory, and the fault if there is one: a
traceback, a diagnostic that cannot be printed, a form that is not canonical. As a program it tries many, from tests/:
`python -m oracles.answers --count 20000`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from generators.hostile import hostile
from partita.compiler.base.diagnostic import Diagnostic, SpecError, render_all
from partita.compiler.language.format import format as formatted
from partita.compiler.language.parse import read_source
from partita.tools.check import check

SECONDS = 1.0  # of CPU time that an answer may take
MEGABYTES = 500  # that the process may hold
GIVEN_UP = 10.0  # seconds after which an answer is not waited for
BESIDE = {"a": "use b\nuse std\nfn beside(x) = x\n", "b": "use a\nfn other(x) = x\n", "x": "fn\n"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The codes of what was found, the price, and what is wrong with the answer."""

    codes: tuple[str, ...]
    seconds: float
    megabytes: float
    fault: str | None


class TooSlow(BaseException):
    """The answer was not waited for."""


def answer(data: bytes, folder: Path, limit: float = SECONDS) -> Answer:
    """Checks a spec in a folder that holds other files which it may use."""
    path = folder / "hostile.partita"
    path.write_bytes(data)
    _forget_peak()
    began = time.process_time()
    codes: tuple[str, ...] = ()
    fault = None
    seconds = 0.0
    try:
        with given_up_after(GIVEN_UP):
            found = check(str(path))
            seconds = time.process_time() - began
            codes = tuple(item.code for item in found)
            _can_be_printed(found)
            _has_one_form(path, codes)
    except (Exception, TooSlow):
        fault = traceback.format_exc(limit=-12)
    seconds, megabytes = seconds or time.process_time() - began, _peak()
    if fault is None and seconds > limit:
        fault = f"{seconds:.1f} s of CPU time"
    if fault is None and megabytes > MEGABYTES:
        fault = f"{megabytes:.0f} MB"
    return Answer(codes, seconds, megabytes, fault)


def _can_be_printed(found: Sequence[Diagnostic]) -> None:
    assert render_all(found) or not found, "a diagnostic without words"
    json.dumps([item.to_json() for item in found])


def _has_one_form(path: Path, codes: Iterable[str]) -> None:
    """What parses can be formatted, and formatting again changes nothing."""
    if not any(code.startswith("E00") for code in codes):
        with suppress(SpecError):
            once = formatted(read_source(path).text)
            assert formatted(once) == once, "formatting twice changes something"


@contextmanager
def beside() -> Generator[Path]:
    """A folder with files that use each other."""
    with tempfile.TemporaryDirectory() as name:
        for stem, text in BESIDE.items():
            (Path(name) / f"{stem}.partita").write_text(text, "utf-8")
        yield Path(name)


@contextmanager
def given_up_after(seconds: float) -> Generator[None]:
    """Raises TooSlow inside after so much CPU time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# ---- memory, as Linux counts it; elsewhere nothing is known


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def _peak() -> float:
    """The most memory that the process held since `_forget_peak`, in megabytes."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


# ---- many


def main() -> int:
    """Tries many and reports; 1 if any answer was faulty."""
    parser = argparse.ArgumentParser(description="Mutated and hostile specs, and what the checker says of them.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for the specs whose answers are faulty")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    answers: list[tuple[Answer, str]] = []
    with beside() as folder:
        for at in range(options.count):
            data = hostile(rng)
            found = answer(data, folder)
            answers.append((found, hashlib.sha256(data).hexdigest()[:12]))
            if found.fault is not None:
                print(f"{at}: {found.fault}", file=sys.stderr, flush=True)
                _keep(options.out, answers[-1][1], data)
    print(report(answers))
    return 1 if any(found.fault for found, _ in answers) else 0


def _keep(folder: Path | None, name: str, data: bytes) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.partita").write_bytes(data)


def report(answers: list[tuple[Answer, str]]) -> str:
    """Counts, the slowest, the largest."""
    clean = sum(not found.codes and found.fault is None for found, _ in answers)
    faulty = sum(found.fault is not None for found, _ in answers)
    slowest = max(found.seconds for found, _ in answers)
    largest = max(found.megabytes for found, _ in answers)
    first = Counter(found.codes[0] for found, _ in answers if found.codes)
    lines = [f"{len(answers)} specs: {clean} clean, {len(answers) - clean - faulty} with diagnostics, {faulty} faulty"]
    lines += [f"slowest {slowest:.2f} s of CPU time, largest {largest:.0f} MB"]
    return "\n".join([*lines, " ".join(f"{code}:{count}" for code, count in first.most_common())])


if __name__ == "__main__":
    sys.exit(main())
