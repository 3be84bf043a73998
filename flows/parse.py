"""Records -> person crops and their silhouettes (paper sections 3.1 and 3.3); or a folder of own videos.

The work is cut into shards that are written aside: a run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import process, shards, stages
from flows.parameters import ROOT_PARAMS, DatasetNotVideos, ParamsFile, command_line, shown
from flows.progress import artifact_key
from pipeline import parsing, run_spec, silhouettes
from pipeline import videos as own_videos
from pipeline.datasets import Quarantine
from pipeline.frames import FrameError
from pipeline.layout import Layout
from pipeline.run_spec import Params
from pipeline.videos import VideoSettings

FRAMES_PER_SECOND = 5.0

Videos = Annotated[
    str | None,
    shown(
        "A folder of your own videos, in place of a dataset. A folder inside it holds "
        "synchronised views of one recording. Results go to data/adhoc/<name of the folder>."
    ),
]
Rate = Annotated[float, shown("Frames per second taken from own videos.", gt=0)]


@dataclass(frozen=True)
class Job:
    """What the shards of one run share."""

    name: str
    records: pa.Table
    cutting: parsing.Cutting
    layout: Layout
    out: Path
    scratch: Path


@task(retries=1, cache_policy=NO_CACHE, task_run_name="find people in {video.name}")
def find_people(video: Path, rate: float, people: VideoSettings, scans: Path) -> None:
    """Look through one video; what is found is kept in `scans`. An unreadable video is listed later, by name."""
    with suppress(FrameError):
        own_videos.kept_scan(video, rate, people, scans)


@task(cache_policy=NO_CACHE)
def write_people(folder: str, rate: float, people: VideoSettings, scans: Path) -> int:
    """Records of own videos: every person in every sampled frame."""
    root = Path(folder)
    out = own_videos.layout_of(root).records(own_videos.NAME)
    return own_videos.write_people(root, rate, Quarantine(), scans, out, settings=people)


@task(retries=1, cache_policy=NO_CACHE, task_run_name="shard {number}")
def parse_shard(number: int, rows: Any, job: Job) -> Path:
    """Cut the crops of some records; a shard that is there already is kept."""
    out = job.scratch / f"{number:06d}.arrow"
    parsing.parse_shard(job.records.take(pa.array(rows)), out, job.cutting)
    return out


@task(cache_policy=NO_CACHE)
def join_shards(parts: list[Path], job: Job) -> dict[str, int]:
    """One crops file in the order of the records."""
    names = job.records["frame_id"].to_pylist()
    summary = parsing.merge_shards(names, parts, job.out, job.cutting.size)
    # With them those that other records, settings or code have left.
    for scratch in job.layout.scratches(f"parse-{job.name}"):
        shutil.rmtree(scratch, ignore_errors=True)
    return dataclasses.asdict(summary)


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"parse {given['dataset'] or given['videos']}"


@flow(name="parse", flow_run_name=_run_name, task_runner=shards.runner(), **process.HOOKS)
def parse(
    dataset: DatasetNotVideos = None,
    videos: Videos = None,
    params_file: ParamsFile = ROOT_PARAMS,
    frames_per_second: Rate = FRAMES_PER_SECOND,
    people: VideoSettings = VideoSettings(),  # noqa: B008 - frozen, and the form in the UI shows it
) -> dict[str, int]:
    """Cut every person out of a dataset, or out of own videos, and find the silhouette."""
    if (dataset is None) == (videos is None):
        raise ValueError("name either a dataset or a folder of videos")
    if dataset is not None and stages.started_from_ui():
        stages.run_data("parse", dataset, params_file)
        return {}
    if videos is not None:
        _find_people(videos, frames_per_second, people)
    job = _job(dataset, videos, run_spec.load(params_file))
    plan = parsing.plan_shards(job.records, job.cutting.root)
    get_run_logger().info("%d records in %d shards", job.records.num_rows, len(plan))
    futures = [parse_shard.submit(number, shards.whole(rows), shards.whole(job)) for number, rows in enumerate(plan)]
    parts = shards.gather(futures, f"parse-{job.name}", f"shards of {job.name}")
    counts = join_shards(shards.whole(parts), shards.whole(job))
    create_table_artifact(key=f"crops-{artifact_key(job.name)}", table=[{"dataset": job.name, **counts}])
    return counts


def _find_people(folder: str, rate: float, people: VideoSettings) -> None:
    root = Path(folder)
    scans, videos = own_videos.scans_of(root), own_videos.find_videos(root)
    own_videos.claim(root)
    futures = [find_people.submit(video, rate, people, scans) for video in videos]
    shards.gather(futures, "find-people", f"videos of {root.name}")
    write_people(folder, rate, people, scans)


def _job(dataset: str | None, folder: str | None, params: Params) -> Job:
    source: parsing.Silhouettes
    if folder is not None:
        layout, root, name, pool = own_videos.layout_of(Path(folder)), Path(folder), own_videos.NAME, "body"
        scale = params.crops.scale
        source = "pgn" if Layout(params.scale).checkpoint("pgn").is_dir() else "none"
        if source == "none":
            get_run_logger().warning(
                "no silhouettes: this scale's human parser is not trained yet (`dvc repro train_parser`)"
            )
    else:
        assert dataset is not None
        section, layout, name = params.dataset(dataset), Layout(params.scale), dataset
        root = layout.source(dataset)
        pool, source = section.pool, section.silhouettes
        scale = params.crop_scale(dataset)
    records = parsing.to_cut(layout.records(name))
    cutting = parsing.Cutting(root, params.crops.size, scale, source, _parser(params) if source == "pgn" else None)
    scratch = layout.scratch(f"parse-{name}", parsing.content_fingerprint(records, cutting))
    return Job(name, records, cutting, layout, layout.crops(pool, name), scratch)


def _parser(params: Params) -> silhouettes.Parser:
    return silhouettes.load_parser(Layout(params.scale).checkpoint("pgn"))


def add_source(parser: argparse.ArgumentParser) -> None:
    """Options that say what to work on: a dataset, or own videos and how many of their frames."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", help="a module of pipeline/datasets")
    what.add_argument("--videos", help="a folder of your own videos; results go to data/adhoc/<name of the folder>")
    parser.add_argument(
        "--fps",
        type=float,
        default=FRAMES_PER_SECOND,
        help="frames per second taken from own videos (default: %(default)s)",
    )


if __name__ == "__main__":
    parser = command_line("flows.parse", __doc__)
    add_source(parser)
    arguments = parser.parse_args()
    with process.command():
        parse(arguments.dataset, arguments.videos, arguments.params, arguments.fps)
