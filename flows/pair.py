"""Records and crops -> pairs for pre-training (paper sections 3.1 to 3.3); or a folder of own videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import parse as parse_flow
from flows import process, stages
from flows.parameters import ROOT_PARAMS, DatasetNotVideos, ParamsFile, command_line, shown
from flows.progress import Progress, artifact_key
from pipeline import manifests, run_spec
from pipeline import videos as own_videos
from pipeline.crops import CropStore
from pipeline.layout import PROJECT, Layout
from pipeline.pairs import selection
from pipeline.run_spec import Pairs, Params
from pipeline.videos import VideoSettings
from pipeline.videos.sheets import as_data_url, write_sheets

Choice = Annotated[Pairs | None, shown("How own videos are paired; the params file's `pairs` if not given.")]
Network = Annotated[
    str | None,
    shown("Checkpoint that completes pairs of own videos; the scale's `croco_body` if not given."),
]


@task(task_run_name="choose pairs of {dataset}")
def choose_pairs(
    dataset: str, pool: str, layout: Layout, kinds: tuple[selection.Kind, ...], params: Pairs
) -> dict[str, int]:
    """Write the pairs manifest of one dataset."""
    progress = Progress(f"pair-{dataset}", f"pairs of {dataset}, of the most that are wanted")
    records, store = layout.records(dataset), CropStore(layout.crops(pool, dataset))
    counts = selection.write_selection(records, store, layout.pairs(pool, dataset), params, kinds, progress)
    progress.finish()
    return counts


@task(cache_policy=NO_CACHE, task_run_name="draw {layout.scale}")
def draw(layout: Layout, params: Params, checkpoint: Path | None) -> list[Path]:
    """Sheets to look at: tracks, pairs and, where a network is trained, completions; as artifacts and as files."""
    out = layout.pictures("pair", own_videos.NAME)
    files = (
        layout.records(own_videos.NAME), layout.crops("body", own_videos.NAME), layout.pairs("body", own_videos.NAME),
    )  # fmt: skip
    sheets = write_sheets(*files, out)
    network = own_videos.completing_network(checkpoint, params)
    if network is None:
        get_run_logger().warning("no completions: this scale's croco_body is not trained yet (`make repro`)")
    elif manifests.read_pairs(files[2]).num_rows:
        # torch loads in seconds, and only here.
        from pipeline.videos.completions import complete_pairs

        completions = complete_pairs(network, *files, out, params)
        create_markdown_artifact(key="completion-losses", markdown=completions.text())
        sheets.append(completions.sheet)
    for sheet in sheets:
        shown = sheet.relative_to(PROJECT) if sheet.is_relative_to(PROJECT) else sheet
        create_image_artifact(key=f"own-videos-{sheet.stem}", image_url=as_data_url(sheet), description=f"`{shown}`")
        get_run_logger().info("drawn: %s", shown)
    return sheets


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"pair {given['dataset'] or given['videos']}"


@flow(name="pair", flow_run_name=_run_name, **process.HOOKS)
def pair(
    dataset: DatasetNotVideos = None,
    videos: parse_flow.Videos = None,
    params_file: ParamsFile = ROOT_PARAMS,
    frames_per_second: parse_flow.Rate = parse_flow.FRAMES_PER_SECOND,
    people: VideoSettings = VideoSettings(),  # noqa: B008 - frozen, and the form in the UI shows it
    choice: Choice = None,
    checkpoint: Network = None,
) -> dict[str, int]:
    """Choose cross-view and cross-pose pairs of a dataset, or make silhouettes, pairs and completions of own videos."""
    params = run_spec.load(params_file)
    if videos is not None and dataset is None:
        parse_flow.parse(None, videos, params_file, frames_per_second, people)
        name, pool, layout = own_videos.NAME, "body", own_videos.layout_of(Path(videos))
        kinds = own_videos.KINDS
    elif dataset is None or videos is not None:
        raise ValueError("name either a dataset or a folder of videos")
    elif stages.started_from_ui():
        stages.run_data("pair", dataset, params_file)
        return {}
    else:
        section = params.dataset(dataset)
        name, pool, kinds = dataset, section.pool, section.pairs
        layout = Layout(params.scale)
    counts = choose_pairs(name, pool, layout, kinds, choice or params.pairs)
    create_table_artifact(
        key=f"pairs-{artifact_key(name)}", table=[{"what": what, "count": count} for what, count in counts.items()]
    )
    if videos is not None:
        draw(layout, params, Path(checkpoint) if checkpoint else None)
    return counts


if __name__ == "__main__":
    parser = command_line("flows.pair", __doc__)
    parse_flow.add_source(parser)
    parser.add_argument(
        "--checkpoint",
        help="network that completes pairs of own videos (default: croco_body of this scale, if trained)",
    )
    arguments = parser.parse_args()
    with process.command():
        pair(arguments.dataset, arguments.videos, arguments.params, arguments.fps, checkpoint=arguments.checkpoint)
