"""Who may import whom: the direction of ARCHITECTURE.md, read off the syntax trees of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What each part may import of the package, itself apart. Left is lowest.
BASE = {"compiler.base"}
IR = BASE | {"compiler.ir"}
OPS = IR | {"compiler.ops"}
MIDDLE = OPS | {"compiler.language"}
PASSES = MIDDLE | {
    "compiler.elaborate",
    "compiler.interpret",
    "compiler.integer",
    "compiler.cost",
    "compiler.partition",
    "compiler.schedule",
    "compiler.recompute",
}
LOWER = PASSES | {
    "compiler.passes",
    "compiler.plan",
    "runtime.program",
    "runtime.program_json",
    "runtime.layout",
    "runtime.parcels",
}
DEVICES = PASSES | {"compiler.passes", "compiler.clusters"}
TOP = {
    "compiler.clusters",
    "compiler.interpret_mesh",
    "compiler.lower",
    "compiler.lasting",
    "compiler.devices",
    "compiler.offloaded",
    "compiler.budget",
    "compiler.kernels",
    "compiler.room",
    "compiler.record",
    "compiler.pipeline",
    "compiler.steps",
    "compiler.api",
    "runtime",
}
EVERYTHING = LOWER | TOP
ALLOWED: dict[str, set[str]] = {
    "compiler.base": set(),
    "compiler.language": BASE,
    "compiler.ir": BASE,
    "compiler.ops": IR,
    "compiler.elaborate": MIDDLE,
    "compiler.interpret": OPS,
    "compiler.interpret_mesh": OPS | {"compiler.interpret"},
    "compiler.integer": set(),
    "compiler.partition": OPS | {"compiler.cost", "compiler.integer"},
    "compiler.cost": OPS | {"runtime.program", "runtime.call"},
    "compiler.schedule": OPS | {"compiler.cost", "compiler.integer"},
    "compiler.recompute": OPS | {"compiler.cost", "compiler.partition", "compiler.integer"},
    "compiler.passes": PASSES,
    "compiler.plan": PASSES | {"compiler.passes"},
    "compiler.lower": LOWER | {"runtime.kernels", "runtime.random", "runtime.call", "runtime.calls", "runtime.host"},
    "compiler.clusters": MIDDLE | {"compiler.elaborate", "compiler.cost"},
    "compiler.lasting": BASE,
    "compiler.devices": DEVICES | {"compiler.lasting"},
    "compiler.offloaded": PASSES | {"compiler.passes", "compiler.lower", "runtime.program"},
    "compiler.room": DEVICES | {"compiler.lasting", "compiler.devices", "compiler.lower", "runtime.program"},
    "compiler.budget": DEVICES | {"compiler.devices", "compiler.offloaded", "compiler.lower"},
    "compiler.kernels": {"compiler.ir", "compiler.cost", "compiler.lower"},
    "compiler.record": MIDDLE | {"compiler.elaborate", "compiler.cost"},
    "compiler.pipeline": EVERYTHING,
    "compiler.steps": PASSES | {"compiler.passes", "compiler.pipeline"},
    "compiler.api": EVERYTHING,
    "runtime": set(),
    "tools": EVERYTHING,
    "": EVERYTHING | {"tools"},
}
# Third parties that only some parts may know.
HOMES: dict[str, tuple[str, ...]] = {
    "torch": (
        "compiler.lower",
        "runtime",
        "tools.audit",
        "tools.bench",
        "tools.sample",
        "tools.calibrate",
        "tools.calibrate_process",
        "tools.calibration",
        "tools.verify",
    ),
    "highspy": ("compiler.integer",),
    "lark": ("compiler.language",),
    "networkx": ("compiler.ir.graph",),
    "graphviz": ("tools.render",),
    "typer": ("tools",),
    "rich": ("tools",),
    "pygls": ("tools.lsp.server",),
    "lsprotocol": ("tools.lsp.server",),
    "pickle": (),
}


def modules() -> list[str]:
    """Every module of the package, dotted, without the package's own name."""
    files = [ROOT / "__init__.py"]
    for folder in ("compiler", "runtime", "tools"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".") for f in files]


def path_of(module: str) -> Path:
    package = ROOT.joinpath(*module.split(".")) if module else ROOT
    return package / "__init__.py" if package.is_dir() else package.with_suffix(".py")


class _WithoutTypes(ast.NodeTransformer):
    """Drops what only a type checker reads: `if TYPE_CHECKING:`."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if only_types else self.generic_visit(node)


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports: `.compiler.ir.graph` of the package, `torch.fx` of others."""
    path = path_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_WithoutTypes().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            yield from (f".{base}.{alias.name}".replace("..", ".") for alias in node.names)


def part_of(name: str) -> str:
    """The longest key of ALLOWED that a dotted name lies in."""
    return max((key for key in ALLOWED if name == key or name.startswith(key + ".") or not key), key=len)


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    part = part_of(module)
    for target in imports(module):
        name = target.removeprefix(".").removeprefix("partita.")
        if not target.startswith((".", "partita.")) or part_of(name) == part:
            continue
        allowed = ALLOWED[part]
        assert any(name == a or name.startswith(a + ".") for a in allowed), f"{module} must not import {name}"


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("compiler.passes.")])
def test_passes_do_not_import_each_other(module: str) -> None:
    siblings = {m for m in modules() if m.startswith("compiler.passes.")} - {module}
    parts = ("definition", "rules", "masked", "rows", "tokens", "bodies", "of_document", "grown", "guard", "hindsight")
    shared = {f"compiler.passes.{name}" for name in parts}  # of passes, no passes
    for target in imports(module):
        name = target.removeprefix(".")
        found = {s for s in siblings - shared if name == s or name.startswith(s + ".")}
        assert not found, f"{module} imports {found}"


@pytest.mark.parametrize("module", modules())
def test_third_parties_stay_where_they_belong(module: str) -> None:
    for target in imports(module):
        homes = HOMES.get(target.partition(".")[0])
        if homes is not None:
            assert any(module == h or module.startswith(h + ".") for h in homes), f"{module} imports {target}"
