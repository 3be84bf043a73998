"""What was measured -> the paper's tables, figures and claims with ours beside them."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows import process, stages
from flows.parameters import ROOT_PARAMS, ParamsFile, command_line
from flows.reproduce import headline
from pipeline import run_spec
from pipeline.layout import PROJECT, Layout
from pipeline.reporting import paper
from pipeline.reporting.__main__ import write_report


@task
def write_page(params_file: str) -> str:
    """Write reports/out from the metrics that exist; nothing is trained."""
    params = run_spec.load(params_file)
    page = write_report(params, Layout(params.scale), paper.load(PROJECT / "reports"))
    return page.relative_to(PROJECT).as_posix()


@flow(name="report", flow_run_name="report {params_file}", **process.HOOKS)
def report(params_file: ParamsFile = ROOT_PARAMS) -> str:
    """Render the report of a scale again, with whatever was measured so far."""
    if stages.started_from_ui():
        stages.repro(["--single-item", "--force", *stages.find(["report"], params_file)], print)
        page = (Layout(run_spec.load(params_file).scale).report / "index.html").relative_to(PROJECT).as_posix()
    else:
        page = write_page(params_file)
    if rows := headline((PROJECT / page).parent):
        create_table_artifact(key="figure-3a", table=rows)
    create_markdown_artifact(key="report", markdown=f"Report: `{page}`")
    return page


if __name__ == "__main__":
    arguments = command_line("flows.report", __doc__).parse_args()
    with process.command():
        report(arguments.params)
