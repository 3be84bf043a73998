"""Data sets that answer without an account -> data/raw, resumed and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows import process
from flows.parameters import DatasetName
from flows.progress import Progress, artifact_key
from pipeline import datasets
from pipeline import download as downloading
from pipeline.datasets import SourceFile
from pipeline.layout import PROJECT


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the fault of a task run may be gone a few minutes later."""
    return not isinstance(state.data, downloading.LastingError)


@task(
    retries=4,
    retry_delay_seconds=[5, 30, 120, 600],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
    task_run_name="fetch {file.name}",
)
def fetch(file: SourceFile, folder: Path) -> Path:
    """Download one file; a broken download goes on where it stopped."""
    return downloading.fetch(file, folder, Progress(f"fetch-{file.name}", file.name))


@task(cache_policy=NO_CACHE)
def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive where the dataset's layout wants it."""
    downloading.unpack(archive, folder)


@flow(name="download", flow_run_name="download {dataset}", **process.HOOKS)
def download(dataset: DatasetName) -> list[str]:
    """Fetch what can be had of a dataset without an account; returns what is wrong with its folder then."""
    source, folder = datasets.get(dataset).source, PROJECT / "data" / "raw" / dataset
    files = downloading.open_files(source, dataset)
    digests = {}
    for file in files:
        archive = fetch(file, folder)
        # Where none is known to check against, those who have fetched the file can still compare.
        digests[file.name] = f"{file.md5} (checked)" if file.md5 else downloading.md5(archive)
        if file.unpack_to is not None:
            unpack(archive, folder / file.unpack_to)
    problems = source.check(folder)
    for problem in problems:
        get_run_logger().warning(problem)
    create_table_artifact(
        key=f"download-{artifact_key(dataset)}",
        table=[
            {"file": file.name, "from": file.url, "MD5": digests[file.name], "licence": source.licence}
            for file in files
        ],
    )
    return problems


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(prog="python -m flows.download", description=__doc__)
    parser.add_argument("--dataset", required=True, help="a module of pipeline/datasets")
    arguments = parser.parse_args()
    with process.command():
        download(arguments.dataset)
