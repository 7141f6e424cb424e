"""Models of specs/models against those of transformers: the same weights, the same logits, loss and gradients.

Three ways of ours: the lowered program, the torch module under autograd, and the reference interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracles.hugging_face import theirs
from oracles.hugging_face_models import DECODERS, OTHERS, parts
from oracles.lowered import run_lowered
from oracles.probes import probed
from oracles.values import Array, leaf_values
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import LOSS
from partita.compiler.ir.types import DType
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.pipeline import forward_passes, gradient_graph, module
from samples.recipes import recipe_over
from samples.spec_texts import model_spec
from samples.zoo import DIMS, tiny_model

# Their GELU has sqrt(2 / pi) as 0.79788456.
ROUNDED = {"BLOOM": 1e-8}
WIDTHS = {"f32": (torch.float32, DType.F32, 1e-5), "f64": (torch.float64, DType.F64, 1e-10)}


CASES = [(model, width) for model in DECODERS for width in WIDTHS]


@dataclass(frozen=True)
class Case:
    """A model in its tiny size, with their weights, and what they make of random rows."""

    model: str
    file: str
    width: str
    weights: Mapping[str, torch.Tensor]
    states: frozenset[str]
    tokens: torch.Tensor
    target: torch.Tensor
    wanted: Mapping[str, Array]
    most: float

    def loss(self) -> Graph:
        """Ours, with the outputs `loss` and `logits`."""
        spec, recipe = recipe_over(self.file, parts(self.model)[0], self.width, model=called(self.model))
        graph, _ = elaborate_loss(spec, recipe)
        builder = GraphBuilder(graph.name)
        builder.extend(graph)
        for key, body in graph.bodies.items():
            builder.body(key, body)
        builder.output("loss", graph.outputs["loss"])
        (logits,) = (use for node in graph for use in node.uses if node.op == "cross_entropy" and use.dtype.is_float)
        builder.output("logits", logits)
        return builder.finish()

    def values(self) -> dict[str, Array]:
        data = {"tokens": self.tokens.numpy(), "target": self.target.numpy()}
        return {**{name: tensor.numpy() for name, tensor in self.weights.items()}, **data}


def called(model: str) -> str:
    """The model as a recipe names it."""
    options = ", ".join(f"{name} = {value}" for name, value in DECODERS[model].options.items())
    return f"{model}({options})" if options else model


def case(model: str, width: str) -> Case:
    other = theirs(model, WIDTHS[width][0])
    dims = DIMS[DECODERS[model].file, parts(model)[0]]
    rows = torch.randint(dims["V"], (dims["batch"], dims["T"] + 1), generator=torch.Generator().manual_seed(3))
    tokens, target = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    loss_of = cross_entropy_of(target)
    outputs, loss, gradients = other.gradients({"tokens": tokens}, lambda outputs: loss_of(outputs["logits"]))
    wanted = {**outputs, "loss": loss, **{f"grad/{name}": one for name, one in gradients.items()}}
    arrays = {name: tensor.numpy() for name, tensor in wanted.items()}
    most = max(WIDTHS[width][2], ROUNDED.get(model, 0.0))
    states = frozenset(other.weights_map.states)
    return Case(model, DECODERS[model].file, width, other.weights(), states, tokens, target, arrays, most)


def cross_entropy_of(target: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mean over rows and tokens."""
    return lambda logits: torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def one(request: pytest.FixtureRequest) -> Case:
    return case(*request.param)


def same(found: Mapping[str, Array], wanted: Mapping[str, Array], most: float) -> None:
    """Relative errors; a gradient that cancels to nearly nothing (a key's bias) is held to a share of the largest."""
    largest = max(float(np.linalg.norm(array)) for name, array in wanted.items() if name.startswith("grad/"))
    for name, array in wanted.items():
        size = max(float(np.linalg.norm(array)), 0.01 * largest)
        error = float(np.linalg.norm(found[name] - array)) / size
        assert error <= most, f"{name} is off by {error}"


def test_the_parameters_are_theirs(one: Case) -> None:
    graph = one.loss()
    assert {node.id for node in graph.nodes("parameter")} == one.weights.keys() - one.states
    assert {node.id for node in graph.nodes("state")} == one.states
    assert {f"grad/{name}" for name in one.weights.keys() - one.states} == one.wanted.keys() - {"loss", "logits"}


def test_lowered_program(one: Case) -> None:
    found, _ = run_lowered(gradient_graph(run_passes(one.loss(), forward_passes(), LOSS)), one.values())
    same(found, one.wanted, one.most)


def test_module_under_autograd(one: Case) -> None:
    model, size = parts(one.model)
    dims, options, dtype = DIMS[one.file, model], DECODERS[one.model].options, WIDTHS[one.width][1]
    net = module(model_spec(one.file), model, size=size, dims=dims, options=options, dtype=dtype)
    net.load_state_dict(dict(one.weights))
    outputs = net(one.tokens)
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs  # some export values beside
    loss = cross_entropy_of(one.target)(logits)
    loss.backward()
    found = {f"grad/{name}": p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    same({"logits": logits.detach().numpy(), "loss": loss.detach().numpy(), **found}, one.wanted, one.most)


@pytest.mark.parametrize("model", DECODERS)
def test_interpreter(model: str) -> None:
    """The reference, of the graph as elaborated and differentiated, nothing else done to it."""
    one = case(model, "f64")
    same(interpret(Differentiate()(run_passes(one.loss(), forward_passes(), LOSS)), one.values()), one.wanted, one.most)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("model", OTHERS)
def test_other_models(model: str, width: str) -> None:
    """Encoders and images: the outputs, and the gradients of their sum weighed by random numbers."""
    single, dtype, most = WIDTHS[width]
    graph = probed(tiny_model(OTHERS[model].file, model, dtype, size=None, training=False, **OTHERS[model].dims))
    other = theirs(model, single)
    values = {**leaf_values(graph), **{name: tensor.numpy() for name, tensor in other.weights().items()}}
    OTHERS[model].given(values)
    assert {node.id for node in graph.nodes("parameter")} == other.weights().keys()
    inputs = {name: torch.from_numpy(values[name]) for name in OTHERS[model].inputs}
    inputs = {name: one.to(single) if one.is_floating_point() else one for name, one in inputs.items()}
    probes = {name: torch.from_numpy(values[f"probe/{name}"]) for name in OTHERS[model].outputs}

    def loss_of(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([(outputs[name] * probe).sum() for name, probe in probes.items()]).sum()

    outputs, loss, gradients = other.gradients(inputs, loss_of)
    wanted = {**outputs, "loss": loss, **{f"grad/{name}": one for name, one in gradients.items()}}
    found, _ = run_lowered(gradient_graph(run_passes(graph, forward_passes(), LOSS)), values)
    same(found, {name: tensor.numpy() for name, tensor in wanted.items()}, most)
