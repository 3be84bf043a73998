"""What is present, what is stood in for, what is wrong, and what to do about it."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from flows import local_server, process
from flows.parameters import ROOT_PARAMS, ParamsFile, command_line
from flows.reproduce import scale_file
from pipeline import doctor as diagnosis
from pipeline import run_spec
from pipeline.layout import PROJECT, Layout
from pipeline.process import plain_errors
from pipeline.reporting import paper


@task
def examine_data(params_file: str) -> list[diagnosis.Diagnosis]:
    """Look at the folder of every dataset, and for published weights and bodies."""
    params = run_spec.load(params_file)
    layout = Layout(params.scale)
    return [
        *diagnosis.diagnose(params, layout, paper.load(PROJECT / "reports")),
        *diagnosis.diagnose_files(params, layout),
    ]


@task
def examine_machine(params_file: str) -> list[diagnosis.Check]:
    """Look at rendering, disk, memory and the Prefect server."""
    params = run_spec.load(params_file)
    port = local_server.find_port()
    return [
        *diagnosis.check_machine(params, Layout(params.scale)),
        diagnosis.Check("a port for the Prefect server", port is not None, str(port or "none is free")),
    ]


@flow(name="doctor", **process.HOOKS)
def doctor(params_file: ParamsFile = ROOT_PARAMS) -> None:
    """Say what a run of this scale would find."""
    data, machine = examine_data(params_file), examine_machine(params_file)
    table = [
        {
            "dataset": item.name,
            "state": item.state,
            "problems": "; ".join(item.problems),
            "put it in": item.folder,
            "get it from": item.homepage,
            "files": ", ".join(item.files),
            "cells": ", ".join(item.cells),
        }
        for item in data
    ]
    create_table_artifact(key="datasets", table=table)
    create_table_artifact(
        key="machine", table=[{"check": item.name, "ok": item.ok, "found": item.found} for item in machine]
    )


def show(data: list[diagnosis.Diagnosis], machine: list[diagnosis.Check]) -> None:
    """The same for a terminal."""
    for check in machine:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
    for item in data:
        print(f"\n{item.name}: {item.state}")
        for problem in item.problems:
            print(f"  problem   {problem}")
        if item.state not in ("present", "rendered"):
            print(f"  get it    {item.homepage} ({item.licence})")
            print(f"            {item.how}")
            if item.files:
                print(f"  files     {', '.join(item.files)}")
            print(f"  put it in {item.folder}, as {item.folder}/SOURCE.md says; then run `make repro` again")
        if item.cells:
            print(f"  used by   {', '.join(item.cells)}")


def main() -> None:
    parser = command_line("flows.doctor", __doc__)
    parser.add_argument("--scale", help="short for --params scales/<name>/params.yaml; mini is the root's own")
    arguments = parser.parse_args()
    with plain_errors("doctor"):
        params_file = scale_file(arguments.scale) if arguments.scale else arguments.params
        # Without Prefect: this is what one runs when something does not work.
        show(examine_data.fn(params_file), examine_machine.fn(params_file))


if __name__ == "__main__":
    main()
