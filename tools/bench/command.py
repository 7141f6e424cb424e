"""`partita bench`: measures against other implementations, alternating in one run; ratios are ours over theirs.

`predict` measures against ourselves: what the compiler foretold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch

from ...runtime.allocator import keep_freed_memory
from ..calibration import quick_table, table_for
from ..fault import CommandFault
from ..numbers import bytes_text, seconds_text
from .measure import Case, summary
from .memory import COMPILED, bench_memory, peers
from .parallel import PLANS, Parallel, bench_parallel
from .parallel import summary as parallel_summary
from .pipeline import PROCESSES, SCHEDULES, Piped, bench_pipeline
from .pipeline import summary as pipeline_summary
from .plan import CASES as MODELS
from .plan import Ranking, bench_plan
from .plan import as_json as plans_json
from .plan import text as plans_text
from .predict import bench_predict
from .predict import summary as errors
from .slices import WAYS, bench_slices
from .slices import as_json as slices_json
from .slices import table as slices_table
from .step import CASES, bench_step
from .terapipe import as_json, bench_terapipe
from .terapipe import table as both_tables
from .zero import CASES as HELD_CASES
from .zero import STAGES, Held, bench_zero
from .zero import summary as held_summary

EXAMPLE = "partita bench step --json"
KINDS = ("step", "precision", "memory", "parallel", "zero", "pipeline", "slices", "terapipe", "predict", "plan")
WHAT = (
    "step: a training step of a GPT against plain PyTorch; precision: the same in bfloat16, against autocast; "
    "memory: the same within a budget, against PyTorch's ways to keep less; "
    "parallel: the same on two processes, against DDP, FSDP2 and DTensor; "
    "zero: what processes hold under ZeRO's stages, beside its formula; "
    "pipeline: stages on two and four processes, against torch.distributed.pipelining; "
    "slices: a long row through a pipeline, whole and in token slices; "
    "terapipe: token slices simulated against the paper's seconds; "
    "predict: foretold seconds and bytes of steps against measured ones, on a CPU; "
    "plan: plans as they were ranked and as they were measured, on processes of this machine"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("what", choices=KINDS, help=WHAT)
    parser.add_argument("--case", choices=CASES, action="append", help="which size; may be repeated (default: all)")
    parser.add_argument("--plan", choices=tuple(PLANS), action="append", help="of `parallel`: which (default: all)")
    parser.add_argument(
        "--schedule", choices=tuple(SCHEDULES), action="append", help="of `pipeline`: which (default: all)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        choices=PROCESSES,
        action="append",
        help="of `pipeline`, `plan`, `slices` and `zero`: how many (default: 2 and 4)",
    )
    parser.add_argument(
        "--peer", choices=tuple(peers()), action="append",
        help="of `memory`: against whom (default: all, with --no-compile those that need no C++ compiler)",
    )  # fmt: skip
    parser.add_argument(
        "--model", choices=MODELS, action="append", help="of `plan`: which; may be repeated (default: all)"
    )
    parser.add_argument(
        "--slices", type=slices_of, metavar="N,…", help="of `slices`: numbers of equal ones, advised (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="timed steps of each side (default 10)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", action="store_true", help="every case and the worst ratios as JSON")


def run(options: argparse.Namespace) -> int:
    """Measures; prints a line for each case, or JSON."""
    if options.rounds < 1:
        raise CommandFault(f"--rounds {options.rounds}: at least one")
    if options.device != "cpu" and not torch.cuda.is_available():
        raise CommandFault(f"there is no device `{options.device}` here", exit_code=1)
    _check_words(options)
    keep_freed_memory()  # as a run does; for the peers too
    own = {
        "pipeline": pipeline, "predict": predict, "parallel": parallel, "zero": zero, "slices": slices, "plan": plan,
    }  # fmt: skip
    if options.what in own:
        return own[options.what](options)
    if options.what == "terapipe":
        simulated = bench_terapipe()
        print(json.dumps(as_json(simulated), indent=1) if options.json else both_tables(simulated))
        return 0
    names = tuple(options.case or CASES)
    device, compiled = torch.device(options.device), not options.no_compile
    if options.what == "memory":
        names = options.peer or [name for name, peer in peers().items() if compiled or peer.backend != COMPILED]
        cases = bench_memory(names, options.rounds, device, quick_table(device.type, "f32"))
    else:
        cases = bench_step(names, options.rounds, device, compiled, options.what == "precision")
    found = summary(cases)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(line(case) for case in cases))
        print(f"worst: time {found['worst_time']:.3f}, memory {found['worst_memory']:.3f}")
    return 0


def _check_words(options: argparse.Namespace) -> None:
    """Raises CommandFault for a word that another bench has."""
    owners = {
        "plan": ("parallel",), "schedule": ("pipeline",), "processes": ("pipeline", "plan", "slices", "zero"),
        "peer": ("memory",), "model": ("plan",), "slices": ("slices",),
    }  # fmt: skip
    for word, benches in owners.items():
        if getattr(options, word) and options.what not in benches:
            raise CommandFault(f"--{word} is of {' and '.join(f'`bench {name}`' for name in benches)}")


def line(case: Case | Parallel) -> str:
    """One case: ratios, and the figures behind them."""
    ours = case.ours if isinstance(case, Case) else "Partita"
    time = f"time {case.ratio_time:.3f} ({seconds_text(case.ours_seconds)} / {seconds_text(case.peer_seconds)})"
    memory = f"memory {case.ratio_memory:.3f} ({bytes_text(case.ours_bytes)} / {bytes_text(case.peer_bytes)})"
    return f"{case.name}: {ours} against {case.peer}: {time}, {memory}"


def parallel(options: argparse.Namespace) -> int:
    """A line for each plan and peer, and the worst; or JSON."""
    if options.device != "cpu":
        raise CommandFault("`bench parallel` runs two processes on the CPU")
    cases = bench_parallel(tuple(options.plan or PLANS), tuple(options.case or CASES[:1]), options.rounds)
    found = parallel_summary(cases)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for case in cases:
        print(f"{line(case)}, losses within {case.gap:.1e}")
    print(f"worst: time {found['worst_time']:.3f}, memory {found['worst_memory']:.3f}")
    return 0


def zero(options: argparse.Namespace) -> int:
    """A line for each number of processes and stage; or JSON."""
    names = options.case or [next(iter(HELD_CASES))]
    if options.device != "cpu" or any(name not in HELD_CASES for name in names):
        raise CommandFault(f"`bench zero` runs {' or '.join(HELD_CASES)}, on the CPU")
    found = [held for name in names for held in bench_zero(options.processes or PROCESSES, STAGES, name)]
    if options.json:
        print(json.dumps(held_summary(found), indent=1))
    else:
        print("\n".join(map(held_line, found)))
    return 0


def held_line(found: Held) -> str:
    """A stage on so many processes: bytes a parameter, and all of them beside the formula's."""
    kinds = asdict(found.holding)
    each = ", ".join(f"{name.removesuffix('_bytes')} {size / found.weights:.2f}" for name, size in kinds.items())
    total = f"{bytes_text(found.holding.bytes)} / {bytes_text(found.formula_bytes)}"
    where = f"ZeRO {found.stage} on {found.processes}"
    early = "; its gradients are scattered as they are made" if found.stage == 1 else ""
    return f"{where}: held / formula {found.ratio:.3f} ({total}), bytes a parameter: {each}{early}"


def pipeline(options: argparse.Namespace) -> int:
    """A line for each schedule and peer, and the worst; or JSON."""
    if options.device != "cpu" or options.case:
        raise CommandFault("`bench pipeline` runs its own case, on the CPU")
    cases = bench_pipeline(
        tuple(options.schedule or SCHEDULES), tuple(options.processes or PROCESSES), "small", options.rounds
    )
    found = pipeline_summary(cases)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for case in cases:
        print(piped(case))
    print(f"worst: time {found['worst_time']:.3f}, memory {found['worst_memory']:.3f}")
    return 0


def plan(options: argparse.Namespace) -> int:
    """A table for each model and number of processes, and the worst ratio; or JSON."""
    if options.device != "cpu" or options.case:
        raise CommandFault("`bench plan` runs its own models, on the CPU")
    found: list[Ranking] = []
    for one in bench_plan(tuple(options.model or MODELS), tuple(options.processes or PROCESSES), options.rounds):
        found.append(one)
        if not options.json:
            print(plans_text(one), flush=True)
    told = plans_json(found)
    print(json.dumps(told, indent=1) if options.json else f"worst: ranked first / fastest {told['worst_ratio']:.3f}")
    return 0


def slices_of(words: str) -> tuple[int | str, ...]:
    """Of `--slices 1,4,advised`. Raises ArgumentTypeError."""
    known: dict[str, int | str] = {str(way): way for way in (1, *WAYS)}
    found = words.split(",")
    if not known.keys() >= set(found):
        raise argparse.ArgumentTypeError(f"`{words}`: each is one of {', '.join(known)}")
    return tuple(known[word] for word in found)


def slices(options: argparse.Namespace) -> int:
    """A line for each way to cut the row; or JSON."""
    if options.device != "cpu" or options.case:
        raise CommandFault("`bench slices` runs its own case, on the CPU")
    cases = bench_slices(
        tuple(options.processes or PROCESSES), options.rounds, wanted=WAYS if options.slices is None else options.slices
    )
    print(json.dumps(slices_json(cases), indent=1) if options.json else slices_table(cases))
    return 0


def piped(case: Piped) -> str:
    """One peer on a pipeline: ratios, and the figures behind them."""
    time = f"time {case.ratio_time:.3f} ({seconds_text(case.ours_seconds)} / {seconds_text(case.peer_seconds)})"
    largest = f"{bytes_text(max(case.ours_bytes))} / {bytes_text(max(case.peer_bytes))}"
    each = ", ".join(f"{ratio:.3f}" for ratio in case.ratios_memory)
    memory = f"memory {case.ratio_memory:.3f} ({largest}; by process {each})"
    name = f"{case.schedule} on {case.processes}"
    return f"{name}: Partita against {case.peer}: {time}, {memory}, losses within {case.gap:.1e}"


def predict(options: argparse.Namespace) -> int:
    """A line for each case of `predict`, and the worst and median errors; or JSON."""
    if options.device != "cpu":
        raise CommandFault("`bench predict` runs on the CPU")
    table = table_for("cpu")
    if not table.points:
        raise CommandFault("this machine's kernels were not timed yet", "`partita calibrate` does it", exit_code=1)
    outcomes = bench_predict(tuple(options.case or CASES), options.rounds, table)
    found = errors(outcomes)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in outcomes:
        time = f"{seconds_text(one.predicted_seconds)} / {seconds_text(one.seconds)} ({100 * one.time_error:+.1f}%)"
        memory = f"{bytes_text(one.predicted_bytes)} / {bytes_text(one.bytes)} ({100 * one.memory_error:+.2f}%)"
        print(f"{one.name}: predicted / measured: {time}, {memory}; kernels take {one.slowdown:.2f} times theirs")
    for what in ("time", "memory"):
        print(f"{what}: worst {found[f'worst_{what}_error']:.1%}, median {found[f'median_{what}_error']:.1%}")
    return 0
