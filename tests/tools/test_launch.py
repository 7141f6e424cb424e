"""Job files: shells parse them, they hold what torchrun needs, and what cannot be is refused."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from generators.bigram import bigram_build, write_build
from partita.runtime.layout import Mesh
from partita.tools.cli import main
from torch.distributed.run import get_args_parser


def build(folder: Path, devices: int = 16) -> str:
    return str(write_build(folder / "a build", replace(bigram_build(), mesh=Mesh((("data", devices),)))))


def test_a_slurm_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", build(tmp_path), "--slurm", "--run", "out/a run"]) == 0
    text = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False, timeout=10).returncode == 0
    for part in ("--nodes=2", "--requeue", "--nproc-per-node 8", "-m partita.runtime", "'out/a run'", "--resume"):
        assert part in text


def test_torchrun_takes_what_a_script_gives_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its parser looks at our words too, and takes what abbreviates an option of its own for that."""
    assert main(["launch", build(tmp_path), "--slurm", "--run", "out/run"]) == 0
    text = capsys.readouterr().out.replace("\\\n", " ")
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("srun")))
    every = ["--resume", "--overwrite", "--data-root", "d", "--dump", "x", "--kernels", "k"]
    found = get_args_parser().parse_args([*words[words.index("torchrun") + 1 : -1], *every])
    assert found.training_script == "partita.runtime" and found.training_script_args[-len(every) :] == every


def test_a_kubernetes_job(tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    words = ["--kubernetes", "--run", "/data/run", "--image", "partita:1", "--per-host", "4", "-o", str(out)]
    assert main(["launch", build(tmp_path), *words]) == 0
    text = out.read_text()
    for part in ("completions: 4", "image: partita:1", "nvidia.com/gpu: 4", "--rdzv-endpoint bigram-0.bigram:"):
        assert part in text


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--per-host", "7"), "do not divide"), (("--kubernetes",), "--image"), (("gone",), "not a build")],
)
def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    folder = str(tmp_path / "gone") if words == ("gone",) else build(tmp_path)
    kind = [] if "--kubernetes" in words else ["--slurm"]
    rest = [word for word in words if word != "gone"]
    assert main(["launch", folder, *kind, "--run", "out/x", *rest]) == 2
    assert said in capsys.readouterr().err
