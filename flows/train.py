"""The hand-off to a machine with a GPU: pull what training needs, run the stages there, push what they made.

The training stages are plain commands of dvc.yaml and tables/dvc.yaml; this flow only brings them to the machine
that has the `gpu` work pool's worker. Both machines share a DVC remote (a folder both see, or
any storage DVC knows) and the Prefect server that PREFECT_API_URL names.

On the machine with the GPU, in its own checkout:

    python -m flows.train --worker
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import Flow, flow, get_run_logger, task

from flows import local_server, process, stages
from flows.parameters import ROOT_PARAMS, ParamsFile, shown
from pipeline import run_spec
from pipeline.layout import PROJECT

POOL = "gpu"
HEADLINE = ("pretrain", "finetune_body_mesh")
KINDS = ("pretrain", "finetune", "train_")
"""How the names of stages begin that train."""


@task(retries=2, retry_delay_seconds=[10, 60])
def pull(targets: list[str]) -> None:
    """Fetch what the stages read from the DVC remote."""
    stages.dvc(["pull", "--with-deps", "--allow-missing", *targets], get_run_logger().info)


@task
def run_stages(targets: list[str], remote: bool) -> dict[str, str]:
    """Run what is stale; a stage that was stopped goes on from its last checkpoint."""
    logger = get_run_logger()

    def say(line: str) -> None:
        logger.info(line)
        running = stages.RUNNING.search(line)
        if remote and running and not running[1].rpartition(":")[2].startswith(KINDS):
            logger.warning(
                "%s is computed here, although there is a remote: has the machine with the data run `dvc push`, and "
                "does its dvc.lock lie here?",
                running[1],
            )

    return stages.repro(targets, say)


@task(retries=2, retry_delay_seconds=[10, 60])
def push(targets: list[str]) -> None:
    """Send checkpoints to the DVC remote; the metrics are small files for git."""
    stages.dvc(["push", *targets], get_run_logger().info)


@flow(name="train", flow_run_name="train {params_file}", **process.HOOKS)
def train(
    params_file: ParamsFile = ROOT_PARAMS,
    which: Annotated[
        list[str],
        shown(
            "Training stages of dvc.yaml and tables/dvc.yaml: all of a kind (pretrain_ablation), or one "
            "(pretrain_ablation@croco_hand)."
        ),
    ] = list(HEADLINE),  # noqa: B006
) -> dict[str, str]:
    """Pre-train and fine-tune where this flow runs."""
    targets = stages.find(which, params_file, KINDS)
    remote = has_remote()
    if remote:
        pull(targets)
    fates = run_stages(targets, remote)
    if remote:
        push(targets)
    files = ", ".join(results(params_file))
    get_run_logger().info("commit here, and pull with git where the data is made: %s", files)
    return fates


def results(params_file: str) -> list[str]:
    """What training stages of a scale leave for git, from the project root."""
    locks = [Path(stages.dvc_file(params_file, tables)).with_name("dvc.lock").as_posix() for tables in (False, True)]
    scale = run_spec.load(params_file).scale
    named = [*locks, *(f"reports/{kind}/{scale}" for kind in ("metrics", "histories"))]
    return [path for path in named if (PROJECT / path).exists()]


def has_remote() -> bool:
    """Whether this checkout has a default DVC remote; without one, data lies here already."""
    command = [sys.executable, "-m", "dvc", "remote", "default"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True).returncode == 0


def work() -> None:
    """Make the work pool, deploy `train` to it and take its runs, one at a time, until stopped."""
    prefect = [sys.executable, "-m", "prefect"]
    pools = subprocess.run([*prefect, "work-pool", "inspect", POOL], cwd=PROJECT, capture_output=True)
    if pools.returncode:
        subprocess.run([*prefect, "work-pool", "create", POOL, "--type", "process"], cwd=PROJECT, check=True)
    here = cast(Flow[..., Any], train.from_source(source=str(PROJECT), entrypoint="flows/train.py:train"))
    here.deploy("gpu", work_pool_name=POOL, concurrency_limit=1, build=False, push=False)
    subprocess.run([*prefect, "worker", "start", "--pool", POOL, "--limit", "1"], cwd=PROJECT, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m flows.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", default=ROOT_PARAMS, help="params file; decides the scale (default: %(default)s)")
    parser.add_argument("--worker", action="store_true", help="deploy to the gpu work pool and take its runs")
    parser.add_argument(
        "stage",
        nargs="*",
        default=list(HEADLINE),
        help="training stages of dvc.yaml and tables/dvc.yaml (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with process.command():
        if arguments.worker:
            print(f"Prefect UI: {local_server.ui_address(local_server.up())}")
            work()
        else:
            train(arguments.params, arguments.stage)
