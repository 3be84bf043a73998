"""A dataset in its official layout -> its records manifest (paper section 3.2)."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from flows import process, stages
from flows.parameters import ROOT_PARAMS, DatasetName, ParamsFile, command_line
from flows.progress import Progress, artifact_key
from pipeline import run_spec
from pipeline.datasets import index as indexing
from pipeline.layout import Layout


@task
def write_records(dataset: str, params_file: str) -> dict[str, int]:
    """Read every entry of the dataset once."""
    params = run_spec.load(params_file)
    progress = Progress(f"index-{dataset}", f"records of {dataset} read")
    counts = indexing.index(dataset, Layout(params.scale), params, progress)
    progress.finish()
    return counts


@flow(name="index", flow_run_name="index {dataset}", log_prints=True, **process.HOOKS)
def index(dataset: DatasetName, params_file: ParamsFile = ROOT_PARAMS) -> dict[str, int]:
    """Write the records of one dataset: real data where it is present, else the stand-in."""
    if stages.started_from_ui():
        stages.run_data("index", dataset, params_file)
        return {}
    counts = write_records(dataset, params_file)
    create_table_artifact(key=f"records-{artifact_key(dataset)}", table=[{"dataset": dataset, **counts}])
    return counts


if __name__ == "__main__":
    parser = command_line("flows.index", __doc__)
    parser.add_argument("--dataset", required=True, help="a module of pipeline/datasets")
    arguments = parser.parse_args()
    with process.command():
        index(arguments.dataset, arguments.params)
