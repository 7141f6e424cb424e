"""What kernels are said to allocate inside is what they do, kernel by kernel, on both sides of every threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from partita.compiler.cost.flops import cost_of
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, DType
from partita.compiler.lower.emit import Emitter, Lifetimes
from partita.compiler.lower.workspace import workspace_bytes
from partita.compiler.ops.build import Builder
from partita.runtime import kernels
from partita.runtime.memory import measure_peak
from torch import fx

aten = torch.ops.aten
FLASH = aten._scaled_dot_product_flash_attention_for_cpu
FLOATS = [torch.float32, torch.float64, torch.float16]


def emitted(op: Any, args: tuple[Any, ...], **options: Any) -> fx.Node:
    """The call as the emitter writes it, over meta tensors of the same layouts."""
    e = Emitter("cpu", functional=True, lifetimes=Lifetimes())

    def turn(arg: Any) -> Any:
        if not isinstance(arg, torch.Tensor):
            return arg
        like = torch.empty_strided(arg.shape, arg.stride(), dtype=arg.dtype, device="meta")
        return e.argument("x", [], like, owned=False)

    return e.call(op, *(turn(arg) for arg in args), **options)


def inside(call: Callable[[], Any]) -> int:
    """Bytes that a call held beside its results."""
    result, peak = measure_peak(call, [], torch.device("cpu"))
    tensors = result if isinstance(result, tuple) else (result,)
    return peak - sum(t.untyped_storage().nbytes() for t in tensors)


def check(op: Any, *args: Any, **options: Any) -> None:
    with torch.no_grad():
        found = inside(lambda: op(*args, **options))
    assert workspace_bytes(emitted(op, args, **options), torch.get_num_threads()) == found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lengths", [(8, 8), (100, 120), (191, 191), (192, 192), (520, 600), (768, 768)])
def test_attention(lengths: tuple[int, int], dtype: torch.dtype) -> None:
    t, s = lengths
    q = torch.randn(2, t, 2, 16, dtype=dtype).transpose(1, 2)
    k = torch.randn(2, s, 2, 16, dtype=dtype).transpose(1, 2)
    check(FLASH.default, q, k, k, 0.0, False, scale=0.25)
    y, lse = FLASH(q, k, k, 0.0, False, scale=0.25)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    for dy in (y, y.contiguous()):
        check(backward, dy, q, k, k, y, lse, 0.0, False, scale=0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_norm_backward(dtype: torch.dtype) -> None:
    x, gain = torch.randn(64, 96, dtype=dtype), torch.ones(96, dtype=dtype)
    y, mean, rstd = aten.native_layer_norm(x, [96], gain, gain, 1e-5)
    check(aten.native_layer_norm_backward.default, y, x, [96], mean, rstd, gain, gain, [True, True, True])


@pytest.mark.parametrize("op", [aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.sub.Tensor])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_elementwise(op: Any, dtype: torch.dtype) -> None:
    x = torch.ones(1000, dtype=dtype)
    check(op, x, 2.0)
    check(op, x, torch.ones(1000, dtype=dtype))
    check(op, x, torch.ones(1000, dtype=torch.int32))


def test_softmax_wants_its_operand_dense() -> None:
    x = torch.randn(30, 20)
    for operand in (x, x.t()):
        check(aten._softmax.default, operand, 1, False)
        check(aten._log_softmax.default, operand, 1, False)


def test_draws_are_run_on_the_meta_device_to_see() -> None:
    seed, start = torch.tensor(1), torch.tensor(0)
    args = (seed, seed, [start, start], 5, 6, [400, 300], torch.float32)
    found = inside(lambda: kernels.uniform(*args))
    e = Emitter("cpu", functional=True, lifetimes=Lifetimes())
    one = e.argument("seed", [], torch.empty((), dtype=torch.int64, device="meta"), owned=False)
    node = e.call(kernels.uniform, one, one, [one, one], *args[3:])
    assert workspace_bytes(node, 2) == pytest.approx(found, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7, 40), (6, 1 << 18), (1000, 700)])
def test_wide_loss_over_low_logits(shape: tuple[int, int], dtype: torch.dtype) -> None:
    z, target = torch.randn(shape, dtype=dtype), torch.randint(shape[1], (shape[0], 1))
    check(kernels.cross_entropy, z, target)
    column = torch.randn(shape[0], 1)
    check(kernels.column_sums, z)
    gain = torch.randn(shape[1])
    check(kernels.rms_norm, z, gain, 1e-5)
    check(kernels.rms_norm_backward, z, z, gain, column)
    with torch.no_grad():
        held = inside(lambda: kernels.cross_entropy_backward(column, z, target, column)) + z.nbytes
    assert workspace_bytes(emitted(kernels.cross_entropy_backward, (column, z, target, column)), 1) == held


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sizes", [(64, 64, 128), (256, 512, 64), (300, 100, 800), (96, 50, 500), (500, 64, 64)])
def test_products_of_bfloat16(sizes: tuple[int, int, int], turned: bool) -> None:
    rows, summed, columns = sizes
    a = (
        torch.randn(summed, rows, dtype=torch.bfloat16).t()
        if turned
        else torch.randn(rows, summed, dtype=torch.bfloat16)
    )
    b = torch.randn(summed, columns, dtype=torch.bfloat16)
    with torch.no_grad():
        found = inside(lambda: aten.mm.default(a, b))
    # oneDNN blocks by the processor and the number of threads: an estimate, of the right size.
    foretold = workspace_bytes(emitted(aten.mm.default, (a, b)), torch.get_num_threads())
    slack = 64 << 10
    assert found / 2 - slack <= foretold <= 2 * found + slack


@pytest.mark.parametrize("op", ["random", "gaussian"])
@pytest.mark.parametrize("dtype", [DType.BF16, DType.F32, DType.F64])
def test_what_an_operator_that_draws_says_of_itself(op: str, dtype: DType) -> None:
    b, dims = Builder(GraphBuilder("t")), (Dim("A", 64), Dim("B", 128))
    scalars = [b.input(name, (), DType.I64) for name in ("seed", "step", "a", "b")]
    said = cost_of(b.node(op, *scalars, dims=dims, dtype=dtype, key="k")).workspace_bytes
    zero, kind = torch.tensor(0), {DType.BF16: torch.bfloat16, DType.F32: torch.float32, DType.F64: torch.float64}
    draw = kernels.uniform if op == "random" else kernels.gaussian
    assert inside(lambda: draw(zero, zero, [zero, zero], 1, 2, (64, 128), kind[dtype])) == pytest.approx(said, rel=0.1)


@pytest.mark.parametrize("lists", [1, 4])
def test_what_a_grouped_product_says_of_itself(lists: int) -> None:
    batch, rows, experts = Dim("batch", lists), Dim("P", 256), Dim("E", 4)
    inner, outer = Dim("K", 32), Dim("N", 96)
    b = Builder(GraphBuilder("t"))
    x, g = (b.input(name, (batch, rows, dim), DType.F32) for name, dim in (("x", inner), ("g", outer)))
    w, ids = b.input("w", (experts, inner, outer), DType.F32), b.input("ids", (batch, rows), DType.I64, experts)
    dot = cost_of(b.node("grouped_dot", x, w, ids, dim=experts, over=(inner,)))
    weights = cost_of(b.node("grouped_outer", x, g, ids, dim=experts, dims=(experts, inner, outer)))
    rows_, cotangents = (torch.randn(1, lists * 256, 1, n) for n in (32, 96))
    matrices = torch.randn(1, 4, 32, 96)
    each = torch.arange(256).div(64, rounding_mode="floor").expand(lists, 256).contiguous()
    with torch.no_grad():
        product = inside(lambda: kernels.grouped_dot(rows_, matrices, each))
        summed = inside(lambda: kernels.grouped_outer(rows_, cotangents, each, 4))
    assert product == pytest.approx(dot.workspace_bytes, rel=0.1, abs=1 << 10)
    assert summed == pytest.approx(weights.workspace_bytes, rel=0.1, abs=1 << 10)
