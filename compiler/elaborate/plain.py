"""What the runtime reads of a recipe: plain data under the runtime's own names, ready to be JSON.

In: a `Recipe`. Out: a dict that `runtime.recipe.from_plain` reads, which knows nothing of the compiler.
"""

from __future__ import annotations

from .recipe import ROW_FACTS, Column, DataSource, Recipe


def plain(recipe: Recipe) -> dict[str, object]:
    """What the runtime reads of a recipe, as plain data under its own names (`runtime.recipe.Training`)."""
    evaluate, check, log, spikes = recipe.evaluate, recipe.checkpoint, recipe.log, recipe.on_spike
    return {
        "source": _source(recipe.source),
        "rows": None if recipe.rows is None else {"kind": recipe.rows.kind, "length": recipe.rows.length},
        "columns": [
            *(_column(item) for item in recipe.columns if item.rule != "noise"),  # a step draws its own noise
            *(
                _column(Column(f"rows.{rule}", rule))
                for rule in (ROW_FACTS if recipe.rows and recipe.rows.ragged else ())
            ),
        ],
        "steps": recipe.steps,
        "batch": recipe.batch,
        "seed": recipe.seed,
        "budget_bytes": None if recipe.plan is None else recipe.plan.budget_bytes,
        "turns": [{"program": t.program, "repeat": t.repeat, "name": t.update} for t in recipe.turns],
        "start": recipe.start,
        "trace": None if recipe.trace is None else {"at": recipe.trace.at, "steps": recipe.trace.steps},
        "on_nan": recipe.on_nan,
        "on_spike": None
        if spikes is None
        else {"action": spikes.action, "deviations": spikes.deviations, "window": spikes.window},
        "folder": recipe.folder,
        "evaluate": None
        if evaluate is None
        else {
            "every": evaluate.every,
            "share": evaluate.share,
            "source": _source(evaluate.source),
            "batches": evaluate.batches,
        },
        "checkpoint": {"every": check.every, "keep": check.keep, "to": check.to, "on_signal": check.on_signal},
        "log": {"every": log.every, "metrics": log.metrics, "tensorboard": log.tensorboard},
    }


def _column(column: Column) -> dict[str, object]:
    return {
        "name": column.name,
        "rule": column.rule,
        "of": column.of,
        "source": _source(column.source),
        "entry": column.entry,
    }


def _source(source: DataSource | None) -> dict[str, object] | None:
    return (
        None
        if source is None
        else {
            "kind": source.kind,
            "paths": list(source.paths),
            "dtype": source.dtype,
            "end": source.end,
            "folder": source.folder,
        }
    )
