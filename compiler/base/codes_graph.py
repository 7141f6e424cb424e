"""Entries E09, graphs and passes. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0901",
        title="no graph text",
        what="The text describes no graph, or one that does not hold together.",
        why="Graphs print as text and parse back; a text that was edited must still be one.",
    ),
    Entry(
        code="E0911",
        title="a batch that does not divide",
        what="The batch does not split into so many equal microbatches.",
        why="Every microbatch has the same shape. The message names the nearest ones that do.",
    ),
    Entry(
        code="E0912",
        title="a step that cannot be microbatched",
        what="Something in the model or the loss needs the whole batch at once.",
        why="The mean of the microbatches' results would be another number.",
    ),
    Entry(
        code="E0913",
        title="a policy that is not there",
        what="There is no rematerialization policy of this name.",
        why="The message names those that there are.",
    ),
    Entry(
        code="E0914",
        title="experts that run for every token",
        what="A mixture picks k experts for each token, but all of them would be computed.",
        why="A mixture is sparse or it is not worth having. It is sparse where the picked experts' results are summed "
        "with the gates as weights, and nothing else reads what a single expert gives. Experts that are made unlike "
        "each other (`bank e in E of …`) have no product that they share, so they cannot be.",
    ),
    Entry(
        code="E0915",
        title="documents that cannot be kept apart",
        what="Rows hold several documents, and something in the model brings tokens of different ones together.",
        why="Attention, recurrences, windows and reductions over keys are kept within a document, whatever it shares "
        "its row with. What cannot be is refused: the result would depend on how rows were packed.",
    ),
    Entry(
        code="E0916",
        title="a precision of what is not there",
        what="A pattern of the section `precision` names no part of any graph that a step runs.",
        why="A misspelt path would compute its part in the type of all the rest.",
    ),
    Entry(
        code="E0917",
        title="tokens that cannot be cut into slices",
        what="A pipeline's schedule cuts rows into token slices, and a token needs what a later slice computes.",
        why="A slice is computed before those behind it. Attention under a causal mask, recurrences and what treats "
        "every token alike can be cut; a mean over the tokens that goes back to each of them cannot.",
    ),
    Entry(
        code="E0921",
        title="a foreign kernel that was not allowed",
        what="The model needs code of a package to be computed: a kernel without a body, so without another meaning.",
        why="A spec alone runs no foreign code. Whoever runs the command names the packages: --allow-kernels PACKAGE.",
    ),
    Entry(
        code="E0941",
        title="a pin of what is not there",
        what="A pin names a dim that the graph lacks, or an axis that the mesh lacks.",
        why="A pin that did nothing would be a wish that nobody fulfils.",
    ),
    Entry(
        code="E0942",
        title="a dim that cannot be cut so",
        what="A dim is shorter than the axes that are to cut it, or every operator on it needs it whole.",
        why="Devices without work would wait for the others. The message says which dims can be cut, or by how many.",
    ),
    Entry(
        code="E0943",
        title="memory that does not suffice",
        what="No layout over this mesh fits a step into the memory of a device.",
        why="The message says what a device holds at the least, cut as far as it goes.",
    ),
    Entry(
        code="E0944",
        title="a mesh that is none",
        what="The text does not name axes with their sizes, each once: `data=2,tensor=4`.",
        why="Axes are told apart by name, and their product is the number of devices.",
    ),
    Entry(
        code="E0945",
        title="a mesh larger than its cluster",
        what="The axes' sizes make more devices than the levels of the `cluster` record hold.",
        why="A mesh is priced on the links that its axes run over, the last axis innermost; there are no more.",
    ),
    Entry(
        code="E0946",
        title="a pipeline that cannot be",
        what="The model's chain of blocks cannot be cut into the stages that are asked for, or not so that it runs.",
        why="A stage without work, or one that does not fit into memory, is none. The message says what would do.",
    ),
    Entry(
        code="E0947",
        title="wishes that exclude each other",
        what="A dim is pinned to an axis and to none, two dims of every operator that has them are pinned to one axis, "
        "or ZeRO is to cut over an axis that is not there.",
        why="An axis cuts one dim of a value. The message names the operator that cannot do both.",
    ),
    Entry(
        code="E0948",
        title="an axis that cuts nothing",
        what="A warning: along this axis of the mesh all devices hold and compute the same.",
        why="More devices were asked for than are of use. The message says which dim is too short, or what to do.",
    ),
    Entry(
        code="E0951",
        title="a budget that cannot be met",
        what="However much is computed again, a step takes more memory than the budget.",
        why="Parameters, optimizer states, gradients and one block's work must fit. The message says what a step takes "
        "at the least.",
    ),
    Entry(
        code="E0952",
        title="a step that takes more than its plan's budget",
        what="The peak of a step, foretold from what it is compiled to, is above the `budget` of a device.",
        why="The message says whose the memory is. `recompute`, `offload`, more microbatches or a mesh lower the peak; "
        "`partita fit` says what each would cost.",
    ),
)
