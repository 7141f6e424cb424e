"""Entries E02, dims. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0201",
        title="a dim that nothing binds",
        what="No dim of this name can be seen here.",
        why="Dims are those of the block's brackets, its signature, its `dim` statements and its table of sizes.",
        bad=("block A[D] : x[D] -> [D] {\n  param w[E] ~ ones\n  return x\n}\n"),
        mended=("block A[D] : x[D] -> [D] {\n  param w[D] ~ ones\n  return w * x\n}\n"),
    ),
    Entry(
        code="E0202",
        title="a carried axis cannot be named",
        what="The axis comes along with the tensor, but the block's signature does not name it.",
        why=(
            "A block cannot mix an axis that its signature does not name: that is what makes it safe to split the"
            " others."
        ),
        bad=(
            "use std\n"
            "\n"
            "block Layer[D, H] : x[D] -> [D] {\n"
            "  attn : Attention[D, H](mask = causal)\n"
            "  return attn(x)\n"
            "}\n"
            "\n"
            "model M : x[T, D] -> [T, D] {\n"
            "  sizes {\n"
            "       D  H\n"
            "    s  8  2\n"
            "  }\n"
            "  layer : Layer[D, H]\n"
            "  return layer(x)\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "\n"
            "block Layer[D, H] : x[T, D] -> [T, D] {\n"
            "  attn : Attention[D, H](mask = causal)\n"
            "  return attn(x)\n"
            "}\n"
            "\n"
            "model M : x[T, D] -> [T, D] {\n"
            "  sizes {\n"
            "       D  H\n"
            "    s  8  2\n"
            "  }\n"
            "  layer : Layer[D, H]\n"
            "  return layer(x)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0203",
        title="a tensor without the axis",
        what="An operation, a function or an instance needs an axis that the tensor does not have.",
        why="Axes are found by name; rename one to the other if they are meant to be the same: x[T -> S].",
        bad="block A[D, F] : x[D] -> [F] {\n  param w[D, F] ~ normal(0.02)\n  return dot[F](x, w)\n}\n",
        mended="block A[D, F] : x[D] -> [F] {\n  param w[D, F] ~ normal(0.02)\n  return dot[D](x, w)\n}\n",
    ),
    Entry(
        code="E0204",
        title="one axis twice",
        what="A tensor would have two axes of the same dim.",
        why="Broadcasting goes by name, so a name must mean one axis. Rename one of them: x[T -> S].",
        bad="block A[T, S] : x[T, S] -> [T, T] {\n  return x[S -> T]\n}\n",
        mended="block A[T, S] : x[T, S] -> [T, S] {\n  return x\n}\n",
    ),
    Entry(
        code="E0205",
        title="a size that cannot be",
        what="A size is not a whole number of at least 1, is too large, or does not divide.",
        why="Sizes are counted in elements; an axis splits only into equal parts.",
        bad="model M : x[D] -> [D] {\n  sizes {\n       D  H\n    s  10 3\n  }\n  dim K = D / H\n  return x\n}\n",
        mended="model M : x[D] -> [D] {\n  sizes {\n       D  H\n    s  12 3\n  }\n  dim K = D / H\n  return x\n}\n",
    ),
    Entry(
        code="E0206",
        title="parts that do not make up the whole",
        what=(
            "The parts of a split, a join or a stack do not add up to the axis, or a group's sizes do not "
            "multiply to it."
        ),
        why="Nothing may be left over or invented.",
        bad=(
            "model M : x[D] -> [B] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  4\n"
            "  }\n"
            "  dim A = 1, B = 2\n"
            "  a, b = split[D -> A + B](x)\n"
            "  return b\n"
            "}\n"
        ),
        mended=(
            "model M : x[D] -> [B] {\n"
            "  sizes {\n"
            "       D\n"
            "    s  4\n"
            "  }\n"
            "  dim A = 1, B = 3\n"
            "  a, b = split[D -> A + B](x)\n"
            "  return b\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0207",
        title="brackets that say something else",
        what=(
            "What stands in [ ] is not what this operation takes: dims for a function, `T -> S` or `T = 0` for a view."
        ),
        why="x[T -> S] renames, x[H -> (G R)] splits, x[(G R) -> H] merges, x[T = 0] picks; sum[T](x) names the axis.",
        bad="block A[D] : x[T, D] -> [D] {\n  return x[T]\n}\n",
        mended="block A[D] : x[T, D] -> [D] {\n  return x[T = 0]\n}\n",
    ),
    Entry(
        code="E0208",
        title="an index outside of its axis",
        what="An axis is indexed by a number that it does not have, or by what is no whole number.",
        why="Counting starts at 0, and there are no negative indices.",
        bad="block A[D] : x[D] -> [] {\n  return x[D = -1]\n}\n",
        mended="block A[D] : x[D] -> [] {\n  return x[D = D - 1]\n}\n",
    ),
    Entry(
        code="E0209",
        title="ids that do not fit the table",
        what="The ids range over one dim, the table that they index has another.",
        why="Often two dims stand in the wrong order: Embedding[V, D] is a table of V rows.",
        bad=(
            "use std\n"
            "\n"
            "model M : tokens[T] in V -> [T, D] {\n"
            "  sizes {\n"
            "       V    D\n"
            "    s  100  8\n"
            "  }\n"
            "  e : Embedding[D, V]\n"
            "  return e(tokens)\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "\n"
            "model M : tokens[T] in V -> [T, D] {\n"
            "  sizes {\n"
            "       V    D\n"
            "    s  100  8\n"
            "  }\n"
            "  e : Embedding[V, D]\n"
            "  return e(tokens)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0210",
        title="operands whose dims do not fit",
        what="An operator cannot take tensors of these dims.",
        why="The message shows the dims of both with their sizes.",
    ),
    Entry(
        code="E0211",
        title="a block's own check fails",
        what="A `check` of the block does not hold for these dims and options.",
        why="The block's author wrote the message; it stands where the instance is made.",
        bad=(
            "use std\n"
            "\n"
            "model M : x[T, D] -> [T, D] {\n"
            "  sizes {\n"
            "       D  H  G\n"
            "    s  8  4  3\n"
            "  }\n"
            "  attn : Attention[D, H, G]\n"
            "  return attn(x)\n"
            "}\n"
        ),
        mended=(
            "use std\n"
            "\n"
            "model M : x[T, D] -> [T, D] {\n"
            "  sizes {\n"
            "       D  H  G\n"
            "    s  8  4  2\n"
            "  }\n"
            "  attn : Attention[D, H, G]\n"
            "  return attn(x)\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0212",
        title="a result unlike its signature",
        what="What is returned has an axis too many or too few.",
        why=(
            "Where two tensors of different dims meet, the result has every axis of both; often one of them "
            "should have been renamed or have the other's width."
        ),
        bad="use std\n\nblock A[D, F] : x[T, D] -> [T, D] {\n  up : Linear[D, F]\n  return x + up(x)\n}\n",
        mended="use std\n\nblock A[D] : x[T, D] -> [T, D] {\n  up : Linear[D, D]\n  return x + up(x)\n}\n",
    ),
    Entry(
        code="E0213",
        title="a size that must be known",
        what="A parameter, a chain or a bank depends on a dim that has no size.",
        why="What is trained has a fixed shape. Give the dim a column in `sizes`, or a value in the recipe's `dims`.",
    ),
    Entry(
        code="E0214",
        title="a table of sizes that does not fit",
        what="A row has more or fewer cells than there are columns, or a dim's cell is no whole number.",
        why="A row gives one value to each column.",
        bad="model M : x[D] -> [D] {\n  sizes {\n           D  H\n    small  8\n  }\n  return x\n}\n",
        mended="model M : x[D] -> [D] {\n  sizes {\n           D  H\n    small  8  2\n  }\n  return x\n}\n",
    ),
    Entry(
        code="E0215",
        title="more than there are",
        what="`top` is asked for more elements than the axis has, or for none.",
        why="It is true for the k largest along one axis, so k goes from 1 to the axis' size.",
        bad="fn best[E](x) = top[E](x, 0)\n",
        mended="fn best[E](x) = top[E](x, 1)\n",
    ),
    Entry(
        code="E0216",
        title="a window that does not fit",
        what="The places of a `window` are not as many as fit into the axis, or its stride or padding cannot be.",
        why=(
            "A window of size P at every `stride` fits (length + before + after - P) / stride + 1 times, rounded down; "
            "a new name takes that number."
        ),
        bad=(
            "model M : x[T] -> [T] {\n"
            "  sizes {\n"
            "       T\n"
            "    s  8\n"
            "  }\n"
            "  dim P = 3\n"
            "  return max[P](window[T -> (T P)](x, before = 1))\n"
            "}\n"
        ),
        mended=(
            "model M : x[T] -> [T] {\n"
            "  sizes {\n"
            "       T\n"
            "    s  8\n"
            "  }\n"
            "  dim P = 3\n"
            "  return max[P](window[T -> (T P)](x, before = 1, after = 1))\n"
            "}\n"
        ),
    ),
)
