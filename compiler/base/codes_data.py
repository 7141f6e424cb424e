"""Entries E05, data and runs. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0500",
        title="the build's training record is malformed",
        what="A build folder's record of the training is not what the runtime reads.",
        why="It was edited, or written by another version. Compile again.",
    ),
    Entry(
        code="E0501",
        title="the data was not found",
        what="No file fits the path or pattern that the recipe names.",
        why="Paths are relative to the data root (--data-root), the current folder by default.",
    ),
    Entry(
        code="E0502",
        title="the data is empty or too short for one row",
        what="The files hold nothing, or fewer tokens than one row of the batch takes.",
        why="A row has the length that the recipe's `dims` give, and its target is one further.",
    ),
    Entry(
        code="E0503",
        title="a token is out of range",
        what="The data holds an id that the model's vocabulary does not have.",
        why=(
            "Mostly the data was made with another tokenizer, or the type of the file's numbers is another "
            "(uint16, uint32)."
        ),
    ),
    Entry(
        code="E0504",
        title="a path leaves the folder that was named",
        what="The path, or a link on it, leads out of the folder that it must stay in.",
        why="A spec is input like any other; it may not read or write wherever it likes.",
    ),
    Entry(
        code="E0505",
        title="the runtime does not know this source, row rule or column",
        what="The recipe names a way of reading data that this runtime does not have.",
        why="The message lists those that it has.",
    ),
    Entry(
        code="E0506",
        title="a data file cannot be read",
        what="The file may not be read, is no regular file, or is not what it should be.",
        why="The message has the system's own words.",
    ),
    Entry(
        code="E0510",
        title="there is no checkpoint to resume from",
        what="--resume was given, and the folder holds no complete checkpoint.",
        why="Train first, or leave --resume out.",
    ),
    Entry(
        code="E0511",
        title="the checkpoint is of another model",
        what="Its parameters are not those of this model, or have other shapes.",
        why="Resuming it would leave some parameters untrained and others unread.",
    ),
    Entry(
        code="E0512",
        title="the checkpoint cannot be written",
        what="The disk is full, the folder may not be written, or the checkpoint exists already.",
        why="The last complete checkpoint is untouched.",
    ),
    Entry(
        code="E0513",
        title="the checkpoint is damaged or of another format",
        what="A file of the checkpoint is missing, cut short, or of another version.",
        why="Remove that folder; the one before it is complete.",
    ),
    Entry(
        code="E0514",
        title="the run's folder already holds checkpoints",
        what="A new run would write over an older one.",
        why="Resume it, or name another folder.",
    ),
    Entry(
        code="E0515",
        title="the run was begun with another seed",
        what="--resume found another seed than the recipe's.",
        why="The order of the data follows from the seed, so the run would not go on as it began.",
    ),
    Entry(
        code="E0516",
        title="the run's folder cannot be written",
        what="The folder in which the run keeps its checkpoints and logs cannot be made or written.",
        why="The disk may be full, or the folder may belong to somebody else. Name another.",
    ),
    Entry(
        code="E0520",
        title="the loss is not finite",
        what="The loss became infinite or no number.",
        why="A lower learning rate, a longer warm-up or clipping may help.",
    ),
    Entry(
        code="E0521",
        title="the build lacks a program",
        what="The build folder was compiled without what this command runs.",
        why="Compile a train record to train, a language model to generate.",
    ),
    Entry(
        code="E0522",
        title="an initializer is unknown",
        what="The program names a way to initialise a parameter that this runtime does not have.",
        why="It was compiled by another version.",
    ),
    Entry(
        code="E0523",
        title="the folder is not a build, or was changed since",
        what="The folder's files are not those that the compiler wrote.",
        why="A build folder is code, so it runs only as it was written. Compile again.",
    ),
    Entry(
        code="E0524",
        title="a build that runs foreign code",
        what="The build calls kernels of a package that this command was not told to allow.",
        why="The permission of whoever compiled it is not yours. Give it with --allow-kernels PACKAGE.",
    ),
    Entry(
        code="E0525",
        title="a foreign kernel that is not what the spec says",
        what="The package has no such function, or it gives other tensors than its signature in the spec.",
        why="It is called with contiguous tensors [n, dims as written] and gives tensors [n, dims as written].",
    ),
    Entry(
        code="E0526",
        title="a loss far above the steps before",
        what="The loss of a step lies many deviations above the median of the last ones, and the recipe says `stop`.",
        why="Bad rows or too high a learning rate show so. Nothing was updated, the checkpoint before is kept. "
        "`on_spike` says how far is far, and what follows.",
    ),
    Entry(
        code="E0527",
        title="a step took more memory than its budget",
        what="What the device held at the peak of the first step that was measured is above the plan's `budget`.",
        why="Something is held that was not foretold. The message says whose the memory was to be.",
    ),
    Entry(
        code="E0530",
        title="an optional package is missing",
        what="The recipe asks for something that an optional package does.",
        why="The message says what to install.",
    ),
    Entry(
        code="E0531",
        title="there are more or fewer processes than the build's mesh has devices",
        what="A build for a mesh runs as one process a device, and another number of processes was started.",
        why="Each process runs the program of its own place on the mesh. Start as many, or compile for another mesh.",
    ),
    Entry(
        code="E0532",
        title="a process of the mesh ended",
        what="One of the processes that train together failed or was killed; the others were ended too.",
        why="The message names the rank and what ended it. `--resume` goes on from the newest checkpoint.",
    ),
    Entry(
        code="E0533",
        title="a process that waited in vain",
        what="A process waited for a message or a collective of another that is gone, or that did not come in time.",
        why="The message names both, the part of the step and the microbatch. Then every process ends.",
    ),
    Entry(
        code="E0540",
        title="the prompt does not fit the model",
        what=(
            "The prompt is empty, holds characters that the vocabulary lacks, or an option of generate is out of range."
        ),
        why="Generation goes on from at least one token.",
    ),
    Entry(
        code="E0541",
        title="the model sees what is still to come",
        what="Ids are drawn one after the other, but what this model says of one follows from those behind it.",
        why="It would go on from what does not exist yet. Give its attention `mask = causal`, and train it so.",
    ),
    Entry(
        code="E0550",
        title="a file of weights cannot be read",
        what="It is not there, damaged, no safetensors file, or an index that names what it may not.",
        why="Weights come from anywhere, so nothing of them is run and only what was named is read.",
    ),
    Entry(
        code="E0551",
        title="the weights do not fit the model",
        what="A tensor is missing, of another shape or type, or none that the map knows; or a second name of a tied "
        "parameter holds other values.",
        why="The message gives both shapes. Is it the size (--size) and the model that the file is of?",
    ),
    Entry(
        code="E0552",
        title="the weights cannot be written",
        what="The folder holds something already, cannot be written, or the model has parameters that theirs do not.",
        why="Nothing is overwritten, and what is written is whole.",
    ),
)
