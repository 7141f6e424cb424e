"""`partita launch`: writes the job file that runs a build on several hosts, torchrun inside.

In: a build folder and what the cluster calls things. Out: a Slurm batch script or a Kubernetes Job, on standard output
or in a file. Every host runs one torchrun, which meets the others at the first; a job that is preempted gets SIGTERM in
time to save a checkpoint, and begins again from the newest.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..runtime.program_json import ProgramFormatError, from_json
from .arguments import write_text
from .fault import CommandFault

EXAMPLE = "partita launch out/demo/build --slurm --run out/demo --per-host 8 > job.sh"
PORT = 29400


@dataclass(frozen=True)
class Job:
    """name: of the job. hosts, per_host: processes. command: what each process runs, behind torchrun's own words."""

    name: str
    hosts: int
    per_host: int
    command: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("build", metavar="BUILD", help="a folder that `partita compile --mesh …` wrote")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--slurm", action="store_true", help="a batch script for sbatch")
    kind.add_argument("--kubernetes", action="store_true", help="a Service and an indexed Job for kubectl")
    parser.add_argument("--run", metavar="DIR", required=True, help="the run's folder, which all hosts see")
    parser.add_argument("--per-host", type=int, metavar="N", default=8, help="devices of a host (default 8)")
    parser.add_argument("--image", metavar="NAME", help="the container's image (Kubernetes)")
    parser.add_argument("--device", metavar="NAME", default="cuda", help="cpu or cuda (default cuda)")
    parser.add_argument("-o", "--out", metavar="FILE", help="where to write (default: standard output)")


def run(options: argparse.Namespace) -> int:
    """Writes the job file."""
    job = job_of(options)
    if options.kubernetes and not options.image:
        raise CommandFault("a Kubernetes job needs --image", "one that has partita and the build's folder mounted")
    text = slurm(job) if options.slurm else kubernetes(job, options.image, options.device)
    if options.out:
        write_text(Path(options.out), text)
    else:
        print(text, end="")
    return 0


def job_of(options: argparse.Namespace) -> Job:
    """How many hosts the build's mesh takes, and what they run."""
    try:
        build = from_json((Path(options.build) / "program.json").read_text(encoding="utf-8"))
    except (OSError, ProgramFormatError) as fault:
        raise CommandFault(f"{options.build} is not a build folder: {fault}", "compile one") from None
    count = build.mesh.size
    per_host = min(options.per_host, count)
    if per_host < 1 or count % per_host:
        raise CommandFault(f"{count} devices do not divide into hosts of {per_host}", "choose another --per-host")
    words = [options.build, "--out", options.run, "--device", options.device]
    return Job(build.name, count // per_host, per_host, f"-m partita.runtime {shlex.join(words)}")


# The newest checkpoint is taken up where there is one: at first there is none, after a preemption there is.
RESUME = '$(ls -d "$RUN"/checkpoints/step-* > /dev/null 2>&1 && echo --resume)'


def slurm(job: Job) -> str:
    """A batch script. Slurm sends SIGTERM to the steps two minutes before the end, then queues the job anew."""
    run = shlex.split(job.command)[shlex.split(job.command).index("--out") + 1]
    return f"""#!/bin/bash
#SBATCH --job-name={job.name}
#SBATCH --nodes={job.hosts}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={job.per_host}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
RUN={shlex.quote(run)}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \\
  --nnodes {job.hosts} --nproc-per-node {job.per_host} --rdzv-id "$SLURM_JOB_ID" \\
  --rdzv-backend c10d --rdzv-endpoint "$HEAD:{PORT}" \\
  {job.command} {RESUME}
"""


def kubernetes(job: Job, image: str, device: str) -> str:
    """A headless Service, by which the hosts find the first, and an indexed Job that begins anew what was evicted."""
    name = "".join(c if c.isalnum() else "-" for c in job.name.lower()).strip("-") or "partita"
    run = shlex.split(job.command)[shlex.split(job.command).index("--out") + 1]
    gpus = f"\n          resources: {{limits: {{nvidia.com/gpu: {job.per_host}}}}}" if device == "cuda" else ""
    return f"""apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: None
  selector: {{job-name: {name}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completionMode: Indexed
  completions: {job.hosts}
  parallelism: {job.hosts}
  backoffLimit: 1000
  template:
    spec:
      subdomain: {name}
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 120
      containers:
        - name: train
          image: {image}{gpus}
          command: [bash, -c]
          args:
            - |
              RUN={shlex.quote(run)}
              exec torchrun --nnodes {job.hosts} --nproc-per-node {job.per_host} --rdzv-id {name} \\
                --rdzv-backend c10d --rdzv-endpoint {name}-0.{name}:{PORT} \\
                {job.command} {RESUME}
"""
