"""Entries E03, options and calls. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0301",
        title="an option that is not there",
        what="The block or function has no option or input of this name.",
        why="The message names the nearest one.",
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D](bais = false)\n  return f(x)\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D](bias = false)\n  return f(x)\n}\n",
    ),
    Entry(
        code="E0302",
        title="too many, too few or repeated arguments",
        what="An argument is missing, given twice, or one too many.",
        why="An argument without a name goes to the first place that is free.",
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return f(x, x)\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return f(x)\n}\n",
    ),
    Entry(
        code="E0303",
        title="a value of another kind",
        what="An option takes a number, a truth value, a text or a function, and something else is given.",
        why="An option's kind is written after its name, or is that of its default.",
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D](bias = 3)\n  return f(x)\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D](bias = true)\n  return f(x)\n}\n",
    ),
    Entry(
        code="E0304",
        title="arithmetic without a result",
        what="A number of the compile time is divided by zero, is too large, or is not real.",
        why="The compiler works such numbers out before anything runs.",
        bad="fn f(x) {\n  return x * (1 / 0)\n}\n",
        mended="fn f(x) {\n  return x * 0.5\n}\n",
    ),
    Entry(
        code="E0305",
        title="dims are needed",
        what="The function works along an axis, and its brackets do not say which.",
        why="sum[T](x), softmax[S](x), dot[D](x, w): the axis is always named.",
        bad="block A[D] : x[D] -> [] {\n  return sum(x)\n}\n",
        mended="block A[D] : x[D] -> [] {\n  return sum[D](x)\n}\n",
    ),
    Entry(
        code="E0306",
        title="something that stands only in records",
        what="Lists and quantities with a unit have no meaning in equations.",
        why="They belong to train, cluster and plan.",
        bad="fn f(x) {\n  return x * 3 ms\n}\n",
        mended="fn f(x) {\n  return x * 3\n}\n",
    ),
    Entry(
        code="E0307",
        title="a choice that depends on data",
        what="`if` and `check` are decided while compiling; this is a tensor.",
        why="A tensor has a different value at every element and every step: where(condition, a, b) chooses for each.",
        bad="fn positive(x) {\n  return if x > 0 then x else 0\n}\n",
        mended="fn positive(x) {\n  return where(x > 0, x, 0)\n}\n",
    ),
    Entry(
        code="E0308",
        title="the wrong number of dims",
        what="More, fewer or other dims are given than the block or function declares.",
        why="A block's dims are given where it is made; a call binds those of its signature: enc[T = S](x).",
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D]\n  return f(x)\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return f(x)\n}\n",
    ),
    Entry(
        code="E0309",
        title="a kind that is not there",
        what="What stands after the colon of an option is no kind.",
        why="The kinds are int, float, bool, text and fn.",
        bad=("use std\n\nblock A[D](act: function = relu) : x[D] -> [D] {\n  return act(x)\n}\n"),
        mended=("use std\n\nblock A[D](act: fn = relu) : x[D] -> [D] {\n  return act(x)\n}\n"),
    ),
    Entry(
        code="E0310",
        title="names and values differ in number",
        what="There are more or fewer names than values, or results than the signature says.",
        why="Every value gets one name.",
        bad="fn f[D](x) {\n  dim P = 2\n  a, b, c = unstack[P](stack[P](x, x))\n  return a\n}\n",
        mended="fn f[D](x) {\n  dim P = 2\n  a, b = unstack[P](stack[P](x, x))\n  return a\n}\n",
    ),
    Entry(
        code="E0311",
        title="a spec that grows without end",
        what="The spec makes more operators, or nests calls deeper, than any machine holds.",
        why="The bound keeps hostile text from exhausting memory.",
    ),
    Entry(
        code="E0312",
        title="something that contains itself",
        what="A block makes an instance of itself, or a model is derived from itself.",
        why="It would never end. For repetition there are chain and scan.",
        bad="block A[D] : x[D] -> [D] {\n  inner : A[D]\n  return inner(x)\n}\n",
        mended=(
            "use std\n"
            "\n"
            "model M : x[D] -> [D] {\n"
            "  sizes {\n"
            "       L  D\n"
            "    s  2  8\n"
            "  }\n"
            "  inner : chain L of Linear[D, D]\n"
            "  return inner(x)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0313",
        title="an option given to a call",
        what="An option of the block stands in the call of its instance.",
        why="Options go where the instance is made, tensors where it is called.",
        bad=(
            "use std\n"
            "\n"
            "block A[D, H] : x[T, D] -> [T, D] {\n"
            "  attn : Attention[D, H]\n"
            "  return attn(x, mask = causal)\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "\n"
            "block A[D, H] : x[T, D] -> [T, D] {\n"
            "  attn : Attention[D, H](mask = causal)\n"
            "  return attn(x)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0314",
        title="layers that do not chain",
        what="What a layer gives is not what the next one takes.",
        why="A chain carries as many inputs as it has outputs, of the same dims; the rest reach every layer.",
        bad=(
            "use std\n"
            "\n"
            "model M : x[D] -> [F] {\n"
            "  sizes {\n"
            "       L  D  F\n"
            "    s  2  8  16\n"
            "  }\n"
            "  layers : chain L of Linear[D, F]\n"
            "  return layers(x)\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "\n"
            "model M : x[D] -> [D] {\n"
            "  sizes {\n"
            "       L  D\n"
            "    s  2  8\n"
            "  }\n"
            "  layers : chain L of Linear[D, D]\n"
            "  return layers(x)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0315",
        title="a loss that is not one number",
        what="The recipe's loss has axes.",
        why="Training lowers one number. Take the mean: mean(…).",
    ),
    Entry(
        code="E0316",
        title="the model sees what it is to predict",
        what="The loss compares the result at t with the token at t + 1, and the model looks at that token.",
        why="It would learn to copy, reach a loss near zero, and generate nonsense. Attention needs a causal mask.",
    ),
    Entry(
        code="E0317",
        title="a scan that does not go on",
        what=(
            "A carry has no next value, or one of other axes or another type; `next` names no carry; or nothing is "
            "emitted."
        ),
        why=(
            "A scan runs along a dim: each step reads the carries, says with `next` what the next step reads, and "
            "emits what is stacked along the dim. A carry never has the scan's own axis: x[T = t] reads one step of it."
        ),
        bad=("fn total[T](x) {\n  scan t in T carry h = 0 {\n    emit y = h + x[T = t]\n  }\n  return y\n}\n"),
        mended=(
            "fn total[T](x) {\n"
            "  scan t in T carry h = 0 {\n"
            "    s = h + x[T = t]\n"
            "    next h = s\n"
            "    emit y = s\n"
            "  }\n"
            "  return y\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0318",
        title="a state that cannot change so",
        what="`next` names no state of the block, gives it other axes, changes it twice, or stands within a scan.",
        why=(
            "A state lives from step to step beside the parameters (running statistics). Training changes it once a "
            "step, after everything that reads the old value; evaluation only reads it."
        ),
        bad=(
            "block Mean[C] : x[batch, C] -> [batch, C] {\n"
            "  state mu[C] = 0\n"
            "  next mu = 0.9 * mu + 0.1 * x\n"
            "  return x - mu\n"
            "}\n"
        ),
        mended=(
            "block Mean[C] : x[batch, C] -> [batch, C] {\n"
            "  state mu[C] = 0\n"
            "  next mu = 0.9 * mu + 0.1 * mean[batch](x)\n"
            "  return x - mu\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0319",
        title="an adapter that does not fit",
        what="An adapter takes other inputs than the adapted block takes and gives, or an instance has one already.",
        why=(
            "`adapt` puts a block behind an instance: it takes what the instance took, then what it gave, and gives "
            "the same in its place."
        ),
        bad=(
            "use std\n"
            "model A : x[D] -> [D] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  8\n"
            "  }\n"
            "  f : Linear[D, D]\n"
            "  return f(x)\n"
            "}\n"
            "model B = A {\n"
            "  adapt f : LayerNorm[D]\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "model A : x[D] -> [D] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  8\n"
            "  }\n"
            "  f : Linear[D, D]\n"
            "  return f(x)\n"
            "}\n"
            "model B = A {\n"
            "  adapt f : LoRA[R = 2]\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0320",
        title="a foreign kernel that is not declared in full",
        what='A function with `kernel "package:function"` lacks dims, a result, a usable name, or a `backward`.',
        why=(
            "Its signature is all that the compiler knows of it: tensors have their dims written, the results too, and "
            "what is trained through it needs a body or a backward."
        ),
        bad=(
            "use std\n"
            'fn gate[D](x[D], g) -> [D] kernel "my_ops:gate" {\n'
            "  return silu(g) * x\n"
            "}\n"
            "model M : x[D] -> [D] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  8\n"
            "  }\n"
            "  f : Linear[D, D]\n"
            "  return gate[D](x, f(x))\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            'fn gate[D](x[D], g[D]) -> [D] kernel "my_ops:gate" {\n'
            "  return silu(g) * x\n"
            "}\n"
            "model M : x[D] -> [D] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  8\n"
            "  }\n"
            "  f : Linear[D, D]\n"
            "  return gate[D](x, f(x))\n"
            "}\n"
        ),
    ),
)
