"""A folder of anyone's own videos -> records, crops and pairs, without any annotation.

Pairs ask for the same person at two times or from two sides (paper sections 3.2 and 3.3). A
video directly in the folder is a recording of its own; videos that lie together in a folder
inside it are synchronised views of one recording: they begin at one time, and who is alone in
every view is one person until nobody is seen in any.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from pipeline.crops import CropStore
from pipeline.datasets.quarantine import Quarantine
from pipeline.frames import FrameError
from pipeline.layout import Layout
from pipeline.manifests import read_records, write_records
from pipeline.pairs.selection import Kind, write_selection
from pipeline.parsing import Cutting, parse, to_cut
from pipeline.records import FrameRecord
from pipeline.run_spec import Crops, Pairs, Params, fingerprint
from pipeline.silhouettes import Parser
from pipeline.videos.kept_scans import kept_scan
from pipeline.videos.scan import Scan
from pipeline.videos.settings import VideoSettings

__all__ = [
    "KINDS",
    "NAME",
    "VideoSettings",
    "claim",
    "find_videos",
    "kept_scan",
    "layout_of",
    "pair_videos",
    "parse_videos",
    "read_videos",
    "scans_of",
    "write_people",
]

log = logging.getLogger(__name__)

NAME = "videos"
"""Value of the column `dataset`."""
KINDS: tuple[Kind, ...] = ("view", "pose")
SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
     ".webm", ".wmv"}
)  # fmt: skip

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def find_videos(root: Path) -> list[Path]:
    """Videos directly in `root` or one folder below, sorted. ValueError when there is none."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; name a folder that holds videos")
    found = sorted(path for path in (*root.glob("*"), *root.glob("*/*")) if _is_video(path))
    if not found:
        raise ValueError(f"{root}: no video in it or one folder below (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def layout_of(root: Path) -> Layout:
    """Where flows put records, crops and pairs of these videos: data/adhoc/<name of the folder>, never a DVC output."""
    name = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_")
    if not name:
        raise ValueError(f"{root}: the folder's name gives no name for the results; rename it")
    return Layout(f"adhoc/{name}")


def claim(root: Path) -> None:
    """Note in the folder of the results which videos they are of.

    Raises ValueError where it holds those of another folder of the same name.
    """
    note = layout_of(root).data / "SOURCE.txt"
    place = os.fsencode(root.resolve())
    if note.is_file() and (other := note.read_bytes()) != place:
        raise ValueError(
            f"{root}: {note.parent} has the results of another folder, {os.fsdecode(other)}; rename one of the two, or "
            f"remove {note.parent}"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_bytes(place)


def scans_of(root: Path) -> Path:
    """Where flows keep what was found in each of these videos, for the next run."""
    return layout_of(root).scratch("scans", fingerprint(root.resolve().as_posix()))


def read_videos(
    root: Path,
    rate: float,
    quarantine: Quarantine,
    scans: Path,
    progress: Progress | None = None,
    settings: VideoSettings | None = None,
) -> Iterator[FrameRecord]:
    """Yield a record for every person in every sampled frame.

    Args:
        root: folder of the videos.
        rate: frames per second to sample; no more than a video has.
        quarantine: takes videos that lie deeper than one folder below, unreadable ones and those without a
            person, and frames that do not decode.
        scans: folder that keeps what was found in each video, for the next run.
        progress: called after each video.
        settings: what it takes to be a person.

    Raises ValueError when there is no video, or for a wrong boxes file.
    """
    paths = find_videos(root)
    for path in sorted(path for path in root.glob("*/*/**/*") if _is_video(path)):
        quarantine.add(path.relative_to(root).as_posix(), "deeper than one folder below; move it up to have it read")
    done = 0
    # Videos directly in the folder are recordings of their own; a sub-folder is one recording.
    for _, views in groupby(paths, key=lambda path: path if path.parent == root else path.parent):
        found: dict[str, Scan] = {}
        for path in views:
            name = path.relative_to(root).as_posix()
            try:
                found[name] = kept_scan(path, rate, settings or VideoSettings(), scans)
            except FrameError as error:
                quarantine.add(name, str(error).replace(f"{path}: ", ""))
            else:
                _account(name, found[name], quarantine)
            done += 1
            if progress:
                progress(done, len(paths))
        yield from _records(found, rate)


def _account(name: str, found: Scan, quarantine: Quarantine) -> None:
    if found.missing:
        quarantine.add(name, "a sampled frame does not decode", records=found.missing)
    if not found.sightings:
        quarantine.add(name, "no person was found in the video", records=0)


def _records(scans: dict[str, Scan], rate: float) -> Iterator[FrameRecord]:
    # Views of different frame rates share a clock, which ticks no faster than the fastest of them.
    ticks = min(rate, max((found.info.fps for found in scans.values()), default=rate))
    instants = {
        name: [round(seen.video_frame / found.info.fps * ticks) for seen in found.sightings]
        for name, found in scans.items()
    }
    one_by_one = len(scans) > 1 and all(_alone(of_view) for of_view in instants.values())
    if len(scans) > 1 and not one_by_one:
        log.warning(
            "%s: several persons in one view, so who is who across views is unknown: pairs over time only",
            Path(next(iter(scans))).parent,
        )
    persons = _persons(scans, instants) if one_by_one else {}
    for name, found in scans.items():
        recording, _, view = name.rpartition("/")
        for seen, instant in zip(found.sightings, instants[name], strict=True):
            track = persons[name, seen.shot, seen.track] if one_by_one else seen.track
            subject = f"shot{seen.shot:03d}-person{track:03d}"
            yield FrameRecord(
                dataset=NAME,
                split="train",
                sequence=recording or view,
                subject=f"{view}-{subject}" if recording and not one_by_one else subject,
                camera=view,
                frame_index=instant,
                image=name,
                video_frame=seen.video_frame,
                time_s=seen.video_frame / found.info.fps,
                width=found.info.width,
                height=found.info.height,
                box=seen.box,
            )


def _alone(instants: list[int]) -> bool:
    return len(set(instants)) == len(instants)


_Track = tuple[str, int, int]
"""View, shot, and the track's number within it."""


def _persons(scans: dict[str, Scan], instants: dict[str, list[int]]) -> dict[_Track, int]:
    """Which person of the shot each track shows where everyone is alone in every view, numbered as they appear.

    Tracks that share an instant show one person, and so do those linked through others. Once nobody is
    seen in any view, the next may be somebody else.
    """
    together: dict[tuple[int, int], list[_Track]] = {}
    for name, found in scans.items():
        for seen, instant in zip(found.sightings, instants[name], strict=True):
            together.setdefault((seen.shot, instant), []).append((name, seen.shot, seen.track))
    linked = {track: {track} for tracks in together.values() for track in tracks}
    for tracks in together.values():
        joined = set[_Track]().union(*(linked[track] for track in tracks))
        linked.update(dict.fromkeys(joined, joined))
    numbers: dict[_Track, int] = {}
    count: Counter[int] = Counter()
    for shot, instant in sorted(together):
        track = together[shot, instant][0]
        if track not in numbers:
            numbers |= dict.fromkeys(linked[track], count[shot])
            count[shot] += 1
    return numbers


def write_people(
    root: Path,
    rate: float,
    quarantine: Quarantine,
    scans: Path,
    out: Path,
    progress: Progress | None = None,
    settings: VideoSettings | None = None,
) -> int:
    """Write what `read_videos` yields as the records manifest `out`, beside it the quarantine; returns how many.

    Raises ValueError when there is no video, or no person in any of them.
    """
    count = write_records(read_videos(root, rate, quarantine, scans, progress, settings), out)
    quarantine.write(out.with_suffix(".quarantine.json"))
    if not count:
        out.unlink()
        raise ValueError(f"{root}: no person was found in any video: {quarantine.summary()}")
    return count


def parse_videos(
    folder: Path,
    out: Path,
    *,
    crops: Crops,
    rate: float,
    parser: Parser | None = None,
    settings: VideoSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Find persons in a folder of videos and cut their crops; returns counts.

    Writes records.parquet, records.quarantine.json, crops.arrow and crops.quarantine.json into
    `out`. With a parser the crops get silhouettes. Raises ValueError when there is no video, or
    no person in any of them.
    """
    quarantine = Quarantine()
    records = out / "records.parquet"
    write_people(folder, rate, quarantine, out / ".scans", records, progress, settings)
    cutting = Cutting(folder, crops.size, crops.scale, "none" if parser is None else "pgn", parser)
    summary = parse(to_cut(records), out / "crops.arrow", out / ".shards", cutting)
    found = read_records(records, ["image", "sequence", "subject", "camera"])
    return {
        "videos": len(find_videos(folder)),
        "videos_with_persons": len(found["image"].unique()),
        "tracks": found.group_by(["sequence", "subject", "camera"]).aggregate([]).num_rows,
        "records": summary.records,
        "crops": summary.crops,
        "silhouettes": summary.silhouettes,
        "videos_in_quarantine": len({entry.file for entry in quarantine.entries}),
        "crops_in_quarantine": summary.quarantined,
    }


def pair_videos(out: Path, params: Pairs, progress: Progress | None = None) -> dict[str, int]:
    """Pairs of what `parse_videos` wrote into `out`, as pairs.parquet there; returns counts by reason."""
    records, store = out / "records.parquet", CropStore(out / "crops.arrow")
    return write_selection(records, store, out / "pairs.parquet", params, KINDS, progress)


def completing_network(given: Path | None, params: Params) -> Path | None:
    """Checkpoint that completes pairs: the one given, else the scale's `croco_body`; None where that is not trained.

    Raises ValueError when the given one does not exist.
    """
    checkpoint = given or Layout(params.scale).checkpoint("croco_body")
    if (checkpoint / "config.json").is_file():
        return checkpoint
    if given is not None:
        raise ValueError(f"{given}: no checkpoint there (looked for config.json)")
    log.warning("no completions: there is no %s yet; `make repro` trains it, or name another checkpoint", checkpoint)
    return None
