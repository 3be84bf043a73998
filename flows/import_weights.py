"""A row of `import_weights` -> a checkpoint of ours (paper section 4.2: every initialisation is a row)."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, task

from flows import process, stages
from flows.parameters import ROOT_PARAMS, ParamsFile, command_line, shown
from pipeline import run_spec, weights
from pipeline.layout import Layout


@task(task_run_name="import {name}")
def write_checkpoint(name: str, params_file: str) -> None:
    """Read the published file, or draw random weights, and save them in our format."""
    params = run_spec.load(params_file)
    if name not in params.import_weights:
        raise ValueError(f"{params_file}: import_weights has no {name!r}; it has {', '.join(params.import_weights)}")
    weights.import_weights(name, Layout(params.scale), params.import_weights[name])


@flow(name="import-weights", flow_run_name="import weights {name}", **process.HOOKS)
def import_weights(
    name: Annotated[str, shown("A row of import_weights in the params file.")],
    params_file: ParamsFile = ROOT_PARAMS,
) -> None:
    """Make the checkpoint that training starts from."""
    if stages.started_from_ui():
        stages.run(f"import_weights@{name}", params_file)
        return
    write_checkpoint(name, params_file)


if __name__ == "__main__":
    parser = command_line("flows.import_weights", __doc__)
    parser.add_argument("--name", required=True, help="a row of import_weights in the params file")
    arguments = parser.parse_args()
    with process.command():
        import_weights(arguments.name, arguments.params)
