"""Bodies, motions and backgrounds -> rendered people in a dataset's official layout (paper section 3.2).

Where the real dataset is present nothing is rendered. Finished shards survive a stop.
"""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import process, shards, stages
from flows.parameters import ROOT_PARAMS, DatasetName, ParamsFile, command_line
from flows.progress import artifact_key
from pipeline import run_spec
from pipeline.datasets import standin
from pipeline.layout import Layout, has_real_data


@task(retries=1, cache_policy=NO_CACHE, task_run_name="shard {shard}")
def render_shard(shard: str, job: standin.Job, workers: shards.Workers) -> None:
    """Render one shard in a worker process; one that is there already is kept."""
    workers.call(job.write, shard)


@task(cache_policy=NO_CACHE)
def assemble(job: standin.Job) -> str:
    """Put the shards together in the dataset's layout."""
    return str(job.assemble())


@flow(name="render", flow_run_name="render {dataset}", task_runner=shards.runner(), **process.HOOKS)
def render(dataset: DatasetName, params_file: ParamsFile = ROOT_PARAMS) -> int:
    """Write the stand-in of one dataset; returns the number of shards rendered."""
    if stages.started_from_ui():
        if dataset == "coco":
            stages.run("standin_backgrounds", params_file)
        else:
            stages.run_data("standin", dataset, params_file)
        return 0
    params = run_spec.load(params_file)
    layout = Layout(params.scale)
    if has_real_data(layout.raw(dataset)) or not params.dataset(dataset).standin:
        why = "real data is present" if has_real_data(layout.raw(dataset)) else "this scale has no stand-ins"
        get_run_logger().info("%s: %s, nothing to render", dataset, why)
        layout.standin(dataset).mkdir(parents=True, exist_ok=True)
        return 0
    job = standin.plan(dataset, layout, params)
    missing = job.missing()
    with shards.Workers(standin.LOADED) as workers:
        futures = [render_shard.submit(shard, shards.whole(job), shards.whole(workers)) for shard in missing]
        shards.gather(futures, f"render-{dataset}", f"shards of {dataset}")
    folder = assemble(shards.whole(job))
    create_table_artifact(
        key=f"standin-{artifact_key(dataset)}",
        table=[{"dataset": dataset, "shards": len(job.shards), "rendered now": len(missing), "folder": folder}],
    )
    return len(missing)


if __name__ == "__main__":
    parser = command_line("flows.render", __doc__)
    parser.add_argument("--dataset", required=True, help="a module of pipeline/datasets")
    arguments = parser.parse_args()
    with process.command():
        render(arguments.dataset, arguments.params)
