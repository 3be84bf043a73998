"""`dvc repro` at a scale, one at a time: the flow behind the button, and the command behind `make repro`.

DVC decides what is stale; here its output goes to the run's log and what came out is shown:
each stage's fate, and the table inside the paper's Figure 3(a) with ours beside it.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows import local_server, process, stages
from flows.parameters import ROOT_PARAMS, ParamsFile, command_line, shown
from pipeline import run_spec
from pipeline.layout import PROJECT, Layout

HEADLINE = "fig3a"
SHOWN = ("row_label", "column", "unit", "paper", "ours", "low", "high", "num_seeds", "ordering_vs_default", "stale")


@task
def bring_up_to_date(params_file: str, stage: str, tables: bool) -> dict[str, str]:
    """Run what is stale."""
    params = run_spec.load(params_file)
    tags = (f"reproduce-{runtime.flow_run.id}", f"scale-{params.scale}")
    say = get_run_logger().info
    fates = stages.repro(_targets(stage, params_file), say, tags)
    if tables:
        fates |= _tables(params_file, say, tags)
    return fates


@task
def show(params_file: str, fates: dict[str, str]) -> None:
    """Stages, headline table and the place of the report as artifacts of the run."""
    params = run_spec.load(params_file)
    report = Layout(params.scale).report
    create_table_artifact(key="stages", table=[{"stage": name, "result": fate} for name, fate in fates.items()])
    if rows := headline(report):
        create_table_artifact(key="figure-3a", table=rows, description="Paper and ours; all tables are in the report")
    create_markdown_artifact(key="report", markdown=f"Report: `{(report / 'index.html').relative_to(PROJECT)}`")


def headline(report: Path) -> list[dict[str, str]]:
    """Measured cells of the headline table as the report wrote them; empty when there is none."""
    path = report / "tables" / f"{HEADLINE}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: cell[name] for name in SHOWN} for cell in csv.DictReader(file) if cell["ours"]]


@flow(name="reproduce", flow_run_name="reproduce {params_file} {stage}", **process.HOOKS)
def reproduce(
    params_file: ParamsFile = ROOT_PARAMS,
    stage: Annotated[
        str, shown("A stage of either graph and what it needs, e.g. `pretrain@croco_body`; empty: everything.")
    ] = "",
    tables: Annotated[bool, shown("Also run all that the further tables need (`make tables`).")] = False,
) -> dict[str, str]:
    """Bring a scale, or one stage of it, up to date."""
    if stage and tables:
        raise ValueError("name either a stage or `tables`: a stage of the further tables needs no more than its name")
    fates = bring_up_to_date(params_file, stage, tables)
    show(params_file, fates)
    return fates


def _targets(stage: str, params_file: str) -> list[str]:
    return stages.find([stage], params_file) if stage else [stages.dvc_file(params_file)]


def _tables(params_file: str, say: stages.Say | None, tags: tuple[str, ...] = ()) -> dict[str, str]:
    fates = stages.repro([stages.dvc_file(params_file, tables=True)], say, tags)
    # The report lists whatever was measured, and depends on the headline's metrics alone.
    return fates | stages.repro(["--single-item", "--force", *stages.find(["report"], params_file)], say, tags)


def main() -> None:
    parser = command_line("flows.reproduce", __doc__)
    parser.add_argument("--scale", help="short for --params scales/<name>/params.yaml; mini is the root's own")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stage", default="", help="a stage of either graph and what it needs (default: everything)")
    what.add_argument("--tables", action="store_true", help="also run all that the further tables need")
    arguments = parser.parse_args()
    params_file = scale_file(arguments.scale) if arguments.scale else arguments.params
    params = run_spec.load(params_file)
    targets = _targets(arguments.stage, params_file)
    try:
        with process.server_in_use():
            server = _first_start()
            try:
                stages.repro(targets)
                if arguments.tables:
                    _tables(params_file, None)
            finally:
                if server is not None:
                    server.wait()
    finally:
        process.stop_idle_server()
    if not arguments.stage:
        print(f"\nReport: {(Layout(params.scale).report / 'index.html').relative_to(PROJECT)}")


def _first_start() -> subprocess.Popen[bytes] | None:
    """Start a server that has no database yet: making one takes a dozen seconds, in which the first stages compute."""
    if (local_server.HOME / "prefect.db").is_file():
        return None
    return subprocess.Popen([sys.executable, "-m", "flows.local_server", "up"], stdout=subprocess.DEVNULL)


def scale_file(scale: str) -> str:
    """The params file of a scale."""
    return ROOT_PARAMS if scale == run_spec.load(ROOT_PARAMS).scale else f"scales/{scale}/params.yaml"


if __name__ == "__main__":
    try:
        main()
    except (stages.ReproError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
