"""The commands as a user runs them: what they print, write and leave with, and what they never load."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from partita.compiler import pipeline
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.text import parse_graph
from partita.compiler.passes import Pass
from partita.tools.brief import brief
from partita.tools.cli import COMMANDS, main
from partita.tools.specs import bind, step_of

ROOT = Path(__file__).resolve().parents[2]
GPT2, DEMO = str(ROOT / "specs/models/gpt2.partita"), str(ROOT / "specs/recipes/docs_demo.partita")
QUICK = ["check", "fmt", "show", "render", "passes", "help"]
TINY = [f"--set={text}" for text in ("steps=3", "batch=4", "eval.batches=1", "eval.every=0", "generate.length=8")]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_carries_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"example:\n  partita {name}" in said


@pytest.mark.parametrize("name", QUICK)
def test_the_example_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(import_module(f"partita.tools.{COMMANDS[name][0]}").EXAMPLE)[1:]
    if name == "fmt":
        words.append("--check")
    if name == "render":
        words[words.index("-o") + 1] = str(tmp_path / "picture.svg")
    assert main(words) in ((0, 1) if name == "fmt" else (0,))
    assert capsys.readouterr().out or name == "fmt"


@pytest.mark.parametrize(
    "words", [["check", GPT2], ["show", GPT2], ["fmt", "--check", GPT2], ["render", GPT2, "--fold"]]
)
def test_quick_commands_never_load_torch(words: list[str], tmp_path: Path) -> None:
    words = [*words, "-o", str(tmp_path / "a.svg")] if words[0] == "render" else words
    code = f"import sys; from partita.tools.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("command", ["show --json", "check", "render --fold -o a.dot", "passes --last --brief"])
def test_sets_reach_a_model_without_a_recipe(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *words = command.split()
    spec = [name, GPT2, "--size", "small", *words]
    assert main([*spec, "--set", "dims.T=64", "--set", "dims.D=96", "--set", "dims.L=2", "--set", "drop=0"]) == 0
    assert "T = 64, V = 50257, D = 96" in capsys.readouterr().out or name != "passes"
    for wrong, hint in {"drp=0": "did you mean `drop`?", "dims.Q=3": "no dim `Q`", "dims.D=64": "whole number"}.items():
        assert main([*spec, "--set", wrong]) == 2
        assert hint in capsys.readouterr().err


def test_one_of_several_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = str(tmp_path / "two.partita")
    body = "x[D] -> [D] {\n  sizes {\n          D\n    small  4\n  }\n  f : Linear[D, D]\n  return f(x)\n}"
    models = "".join(f"model {name} : {body}\n\n" for name in ("One", "Two"))
    Path(several).write_text(f"use std\n{models}")
    for name in ("show", "render", "passes", "check"):
        words = [name, several, "--size", "small", *(["-o", str(tmp_path / "a.dot")] if name == "render" else [])]
        assert main([*words, "--model", "Two"]) == 0
        assert ("Two" in capsys.readouterr().out) == (name in ("show", "passes"))
        assert main([*words, "--model", "Tow"]) == 2
        assert "did you mean `Two`?" in capsys.readouterr().err
    assert main(["show", several, "--size", "small"]) == 0
    assert "assumed: model = One (--model Two), batch = 1" in capsys.readouterr().out


def test_show_gives_exact_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", GPT2, "--size", "small", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 124_439_808
    assert found["flops_per_token"] == 284_812_800 and found["flops_per_token_step"] == 3 * 284_812_800
    assert found["memory_bytes"] == sum(found["memory"].values())
    blocks = {block["path"]: block for block in found["blocks"]}
    assert blocks["blocks.0"]["layers"] == 12 and blocks["blocks.0"]["parameters"] == 85_054_464
    assert "T = 1024" in found["assumed"]
    inside = sum(blocks[name]["parameters"] for name in ("wte", "wpe", "blocks.0", "ln_f"))
    assert inside == blocks[""]["parameters"] == found["parameters"]


def test_sizes_and_sets_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", GPT2, "--size", "medium", "--set", "dims.T=256", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 354_823_168 and found["dims"]["T"] == 256
    assert main(["show", GPT2, "--size", "medum"]) == 2
    assert main(["show", GPT2, "--set", "dims.T=0"]) == 2
    assert main(["show", GPT2, "--set", "T"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_check_tells_every_fault_as_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.partita"
    bad.write_text("use std\nmodel M : x[T, D] -> [T, D] {\n  f : Linear[D, Q]\n  return f(y)\n}\n")
    assert main(["check", str(bad), GPT2]) == 2
    said = capsys.readouterr().err
    assert "bad.partita:3" in said and "error[E" in said
    assert main(["check", "--json", str(bad)]) == 2
    faults = json.loads(capsys.readouterr().out)
    assert {"code", "severity", "title", "labels", "hint"} <= faults[0].keys()
    assert main(["check", str(tmp_path / "none.partita")]) == 2


def test_a_large_graph_is_drawn_only_folded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["render", GPT2, "--size", "xl", "--stage", "step", "-o", str(tmp_path / "a.dot")]
    assert main(words) == 2
    assert "--fold" in capsys.readouterr().err
    assert main([*words, "--fold"]) == 0
    assert main(["render", GPT2, "-o", str(tmp_path / "a.bmp")]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.dot"]


def drawn(path: Path) -> set[tuple[str, ...]]:
    """What an SVG shows, wherever it stands: each box with its words, each arrow."""
    groups = re.findall(r'<g id="(?:node|edge|clust)\d+".*?(?=<!-- |</svg>)', path.read_text(), re.DOTALL)
    return {(*re.findall(r"<title>(.*?)</title>", one), *re.findall(r">([^<>]+)</text>", one)) for one in groups}


def test_the_picture_in_the_readme_is_what_the_command_draws(tmp_path: Path) -> None:
    assert main(["render", GPT2, "--size", "small", "--fold", "-o", str(tmp_path / "gpt2.svg")]) == 0
    found, kept = drawn(tmp_path / "gpt2.svg"), drawn(ROOT / "specs/models/gpt2.svg")
    hint = "partita render specs/models/gpt2.partita --size small --fold -o specs/models/gpt2.svg"
    assert len(kept) > 25 and found == kept, f"drawn otherwise: {found ^ kept}; renew it with {hint}"


def test_passes_print_graphs_that_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", DEMO, "--run", "simplify,differentiate", "--last"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# after differentiate") and "grad/wte" in text
    graph = tmp_path / "a.graph"
    graph.write_text(text)
    assert main(["passes", str(graph), "--run", "simplify"]) == 0
    assert main(["render", str(graph), "--fold", "-o", str(tmp_path / "a.dot")]) == 0
    assert main(["passes", str(graph), "--run", "differentiat"]) == 2
    assert "did you mean `differentiate`?" in capsys.readouterr().err
    assert main(["passes", GPT2, "--run", "differentiate"]) == 2  # a model has no loss


TOUR = str(ROOT / "specs/recipes/tour.partita")


def test_passes_run_the_recipes_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", TOUR, "--brief"]) == 0
    said = re.findall(r"^# (.*): \d+ nodes$", capsys.readouterr().out, re.MULTILINE)
    own = ["inline", "offsets", "route", "simplify", "differentiate", "precision", "fuse_loss", "rematerialize"]
    own += ["update", "microbatch", "simplify"]
    assert said == ["as it comes", *(f"after {name}" for name in own)]
    for words in ([], ["--run", ",".join(own)]):
        assert main(["passes", TOUR, "--last", *words]) == 0
        title, text = capsys.readouterr().out.split("\n", 1)
        assert title.startswith("# after simplify")
        assert parse_graph(text) == step_of(bind(TOUR, (), None))
    assert main(["passes", GPT2, "--last", "--size", "small"]) == 0
    assert capsys.readouterr().out.startswith("# after simplify")
    assert main(["passes", GPT2, "--run", "update"]) == 2
    assert "`train` record" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--list"], [TOUR, "--list"]])
def test_passes_are_listed_with_a_line_each(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*dict.fromkeys(p.name for p in own_passes(TOUR))]
    assert all(30 < len(line) < 120 and "  " in line for line in lines)


def own_passes(path: str) -> list[Pass]:
    spec = pipeline.open_spec(path)
    return pipeline.step_passes(spec, load_recipe(spec))


def test_brief_is_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", TOUR, "--last", "--brief"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Tour: batch = 4, T = 16, V = 256, D = 8"
    headings = [line for line in lines[1:] if line and line[0] != " "]
    assert headings == ["prepare", "forward", "backward", "update", "outputs"]
    by_name = {line.split()[0]: line for line in lines if line.split()}
    assert by_name["head.dot"].endswith(" dot[D](gelu, head.w)")
    assert by_name["embed.table"].endswith("parameter ~ normal(0.02)") and by_name["target"].endswith("input, ids in V")
    assert not [line for line in lines if "dtype" in line or "from" in line or "path(" in line]
    calls = [line.index(op) for line in lines for op in (" dot[", " gelu(", " parameter ~", " add(") if op in line]
    assert len(calls) > 10 and len(set(calls)) == 1  # aligned


def test_brief_tells_renamed_axes_dtypes_and_results() -> None:
    text = """graph g {
  microbatches 2
  dims T = 3, S = 3
  x = input() : f32[T], i64[T] {name, below = none, dims, dtype} @forward
  y = dot(x[T], x[S]) : bf16[T, S] {over = ()} @forward
  output y = y[T, S]
}
"""
    said = brief(parse_graph(text)).splitlines()
    assert said == [
        "g: T = 3, S = 3",
        "forward and backward run 2 times",
        "forward",
        "  x  [T], i64[T]  input",
        "  y  bf16[T S]    dot(x, x[T -> S])",
        "outputs",
        "  y  y",
    ]


def test_train_generate_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", DEMO, *TINY, "--out", run, "--dump", "blocks.0.h"]) == 0
    assert len(list((tmp_path / "run/dump").iterdir())) == 1
    said = capsys.readouterr().out
    assert "step 1/3  loss" in said and "tokens/s" in said and "MFU" in said
    assert "bits a byte" in said and "sample:\nThe " in said
    assert "predicted / measured: parameters 484,416 / 484,416, step time" in said
    assert (tmp_path / "run/graph.svg").is_file() and (tmp_path / "run/build/program.json").is_file()
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    assert main(["train", DEMO, *TINY, "--out", run]) == 1  # holds a run already
    assert "resume" in capsys.readouterr().err
    assert [p for p, _ in before] == sorted((tmp_path / "run").rglob("*"))
    assert main(["train", DEMO, *TINY, "--set", "steps=4", "--out", run, "--resume"]) == 0
    assert "step 4/4" in capsys.readouterr().out
    texts = list[str]()
    for _ in range(2):
        assert main(["generate", run, "--prompt", "The ", "--tokens", "5", "--seed", "3"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("The ")
    assert main(["generate", str(tmp_path)]) == 1
    assert main(["generate", run, "--temperature", "-1"]) == 1
    monkeypatch.chdir(tmp_path)
    assert main(["generate", DEMO]) == 1  # there is no out/docs_demo here
    (tmp_path / "out").mkdir()
    (tmp_path / "run").rename(tmp_path / "out/docs_demo")
    capsys.readouterr()
    assert main(["generate", DEMO, "--prompt", "The ", "--tokens", "5", "--seed", "3"]) == 0
    assert capsys.readouterr().out == texts[0]


def test_a_model_of_tokens_speaks_in_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids.bin").write_bytes(bytes(range(200)) * 4)
    spec, run = tmp_path / "tour.partita", str(tmp_path / "run")
    spec.write_text(Path(TOUR).read_text().replace('corpus("python-docs")', 'tokens("ids.bin", dtype = uint8)'))
    assert main(["train", str(spec), "--set", "steps=1", "--out", run]) == 0
    assert main(["generate", run, "--prompt", "The "]) == 2
    assert 'for instance --prompt "17 4 25"' in capsys.readouterr().err
    assert main(["generate", run, "--prompt", "17 4", "--tokens", "3"]) == 0
    assert re.fullmatch(r"17 4( \d+){3}\n", capsys.readouterr().out)


def test_a_pattern_that_updates_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "tour.partita"
    optimizer = 'optimizer { "haed.w" = sgd(), "*.b" = sgd(), "*" = sgd(momentum = 0.9) }'
    spec.write_text(Path(TOUR).read_text().replace("optimizer = sgd(momentum = 0.9)", optimizer))
    assert main(["compile", str(spec), "-o", str(tmp_path / "build")]) == 0
    said = capsys.readouterr().err
    assert said.count("warning[E0417]") == 1 and "`haed.w`" in said and "did you mean `head.w`?" in said
    assert main(["compile", TOUR, "-o", str(tmp_path / "build")]) == 0
    assert capsys.readouterr().err == ""


def test_wrong_recipes_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", DEMO, "--set", "stpes=3", "--out", str(out)]) == 2
    assert "did you mean `steps`?" in capsys.readouterr().err
    assert main(["train", GPT2, "--out", str(out)]) == 2
    assert main(["train", DEMO, "--recipe", "demo", "--out", str(out)]) == 2
    assert not out.exists()


def test_compile_says_what_it_foretells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", DEMO, "--set", "batch=4", "-o", str(tmp_path / "build")]) == 0
    assert "484,416 parameters" in capsys.readouterr().out
    hopes = json.loads((tmp_path / "build/program.json").read_text())["predictions"]
    assert hopes["tokens_per_step"] == 512 and hopes["step_flops"] == 512 * 3 * 1_130_496
    assert hopes["step_seconds"] > 0 and hopes["peak_bytes"] > 4 * 484_416
    assert main(["compile", DEMO, "--dump", "no.such", "-o", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


# ---- several updates


@pytest.mark.parametrize(
    "command", [["show"], ["passes", "--last", "--brief"], ["render", "--stage", "step", "--fold"]]
)
def test_each_update_is_shown_and_the_first_said_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["-o", str(tmp_path / "gan.dot")] if command[0] == "render" else []
    said: list[str] = []
    for update in ([], ["--update", "disc"], ["--update", "gen"]):
        assert main([command[0], "specs/models/gan.partita", *command[1:], *more, *update]) == 0
        said.append(capsys.readouterr().out)
    first = "assumed: update = disc (--update gen)"
    assert first in said[0] and first not in said[1] + said[2]
    assert [line for line in said[0].splitlines() if "assumed" not in line] == said[1].splitlines()
    assert said[1] != said[2]


@pytest.mark.parametrize(("spec", "known"), [("specs/models/gan.partita", "disc, gen"), (DEMO, "updates stand in")])
def test_an_update_that_is_not_there(spec: str, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", spec, "--update", "both"]) == 2
    assert known in capsys.readouterr().err


# ---- weights written while training


def exporting(folder: Path, body: str) -> str:
    path = folder / "small.partita"
    path.write_text(
        "use std\nuse models.gpt2\n\ntrain small {\n  model = GPT2.small\n"
        "  dims = [T = 8, D = 16, H = 2, L = 2, V = 256, N = 8]\n"
        '  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }\n'
        "  loss = mean(cross_entropy[V](logits, target))\n  batch = 2\n  steps = 3\n  optimizer = sgd()\n"
        f"  lr = 0.1\n  checkpoint {{ keep = 1 }}\n  {body}\n}}\n"
    )
    return str(path)


def test_weights_are_exported_while_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each export is what `partita export` makes of the checkpoint of that step."""
    spec, run = exporting(tmp_path, 'export { every = 2, format = "safetensors" }'), tmp_path / "run"
    assert main(["train", spec, "--out", str(run)]) == 0
    assert sorted(path.name for path in (run / "export").iterdir()) == ["step-00000002", "step-00000003"]
    assert main(["export", spec, str(run / "checkpoints"), "-o", str(tmp_path / "apart")]) == 0
    for name in ("model.safetensors", "config.json"):
        assert (run / "export/step-00000003" / name).read_bytes() == (tmp_path / "apart" / name).read_bytes()
    assert main(["train", spec, "--out", str(run), "--overwrite", "--set", "steps=2"]) == 0


def test_what_has_no_map_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "specs/recipes/tour.partita").read_text().replace("lr        = 0.1", "lr = 0.1\n  export { }")
    (tmp_path / "tour.partita").write_text(text)
    assert main(["compile", str(tmp_path / "tour.partita"), "-o", str(tmp_path / "build")]) == 2
    assert "E0800" in capsys.readouterr().err


def test_a_recipe_says_which_machine_its_time_is_foretold_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster of the spec's own comes before the catalogue's; the command line's before both."""
    text = (ROOT / "specs/recipes/tour.partita").read_text()
    own = "cluster mine {\n  device D { memory = 1 GiB, bandwidth = 1 GB/s, f32 = 1 GFLOP/s }\n}\n"
    said: list[str] = []
    for name, more in (("h100", []), ("mine", []), ("mine", ["--cluster", "h100"])):
        path = tmp_path / "tour.partita"
        path.write_text(text.replace("lr        = 0.1", f"lr = 0.1\n  cluster = {name}") + own)
        assert main(["show", str(path), "--time", *more]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[2] != said[1] and "the roofline of mine" in said[1]
    path.write_text(text.replace("lr        = 0.1", "lr = 0.1\n  cluster = h10"))
    assert main(["show", str(path), "--time"]) == 2
    assert "no cluster `h10`" in capsys.readouterr().err


def test_a_tap_that_nothing_uses_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "specs/recipes/tour.partita").read_text()
    tapped = text.replace("  return head", "  tap far = exp(embed(tokens))\n  return head")
    said: list[str] = []
    for one in (text, tapped):
        (tmp_path / "tour.partita").write_text(one)
        assert main(["passes", str(tmp_path / "tour.partita"), "--last", "--brief"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
