"""Entries E01, names. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0100",
        title="no such error code",
        what="`partita help` was asked for a code that is not in the catalogue.",
        why="Codes are an E and four digits, as the messages print them.",
    ),
    Entry(
        code="E0101",
        title="a name that nothing has",
        what="No value, instance, option, function or block of this name can be seen here.",
        why=(
            "Names are a body's own, its signature's and options', and what `use` brings in. A caller's names "
            "cannot be seen."
        ),
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  h = relu(x)\n  return j\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  h = relu(x)\n  return h\n}\n",
    ),
    Entry(
        code="E0102",
        title="a name that is taken",
        what="The name has a meaning here already.",
        why=(
            "One name means one thing in a body, in a table of sizes and in a file, so that a reader need not "
            "search for the last one."
        ),
        bad="block A[D] : x[D] -> [D] {\n  x = x + 1\n  return x\n}\n",
        mended="block A[D] : x[D] -> [D] {\n  y = x + 1\n  return y\n}\n",
    ),
    Entry(
        code="E0103",
        title="a file that `use` does not find",
        what="Neither the spec's folder nor the models nor the standard library holds a file of this name.",
        why=(
            "`use name` brings in name.partita from beside the spec, then from Partita's own specs; paths cannot "
            "leave these folders."
        ),
        bad="use sdt\n",
        mended="use std\n",
    ),
    Entry(
        code="E0104",
        title="files that use each other",
        what="A file uses another, which comes back to the first.",
        why="Each would need the other to be read before it.",
    ),
    Entry(
        code="E0105",
        title="not a tensor",
        what="An instance, a block or a function stands where a tensor or a number is needed.",
        why="`f` is the instance with its parameters; `f(x)` is what it computes.",
        bad="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return x + f\n}\n",
        mended="use std\n\nblock A[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return x + f(x)\n}\n",
    ),
    Entry(
        code="E0106",
        title="a name of several files",
        what="More than one of the files that are used declare this name.",
        why="Own names come first; among those of others Partita does not guess. Write file.name.",
    ),
    Entry(
        code="E0107",
        title="a part that is not there",
        what="What stands before the dot owns nothing of this name.",
        why="An instance owns its parameters and instances; the layers of a chain have no names in expressions.",
        bad=("use std\n\nblock A[V, D] : x[D] -> [V] {\n  embed : Embedding[V, D]\n  return dot[D](x, embed.w)\n}\n"),
        mended=(
            "use std\n\nblock A[V, D] : x[D] -> [V] {\n  embed : Embedding[V, D]\n  return dot[D](x, embed.table)\n}\n"
        ),
    ),
    Entry(
        code="E0108",
        title="something that cannot be applied",
        what="What stands before ( ) is neither an instance nor a function.",
        why="Only instances and functions compute something of arguments.",
    ),
    Entry(
        code="E0109",
        title="a parameter that is absent",
        what="The parameter is made only if its `when` holds, and here it does not.",
        why="Use it only where the same condition holds: if bias then y + b else y.",
        bad="block A[D](bias = false) : x[D] -> [D] {\n  param b[D] ~ zeros when bias\n  return x + b\n}\n",
        mended=(
            "block A[D](bias = false) : x[D] -> [D] {\n"
            "  param b[D] ~ zeros when bias\n"
            "  return if bias then x + b else x\n"
            "}\n"
        ),
    ),
    Entry(
        code="E0110",
        title="a model or input that is not there",
        what="The spec declares no model, or none of this name; or a column is made of no input of the model.",
        why="A command works on one model; name it if the spec declares several.",
    ),
    Entry(
        code="E0111",
        title="a size that is not there",
        what="The model's table of sizes has no row of this name.",
        why="--size and Model.size choose a row of `sizes`.",
    ),
    Entry(
        code="E0112",
        title="a body that returns nothing",
        what="The body ends without `return`, or a function has none and names no kernel.",
        why="A block, a model or a function is what it returns.",
        bad="block A[D] : x[D] -> [D] {\n  y = x + 1\n}\n",
        mended="block A[D] : x[D] -> [D] {\n  y = x + 1\n  return y\n}\n",
    ),
    Entry(
        code="E0113",
        title="a statement after `return`",
        what="Something stands after the body's `return`.",
        why="It would never count.",
        bad="block A[D] : x[D] -> [D] {\n  return x\n  y = x\n}\n",
        mended="block A[D] : x[D] -> [D] {\n  y = x\n  return y\n}\n",
    ),
    Entry(
        code="E0114",
        title="a statement that cannot stand here",
        what="Functions own no parameters and no instances; some statements belong to models alone.",
        why="Blocks own, functions do not.",
        bad="fn scaled[D](x) {\n  param w[D] ~ ones\n  return w * x\n}\n",
        mended="block Scaled[D] : x[D] -> [D] {\n  param w[D] ~ ones\n  return w * x\n}\n",
    ),
)
