"""Scans of videos kept as files, one per video: a run that was stopped, or is made again, looks at no video twice."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import code
from pipeline.frames import VideoInfo
from pipeline.run_spec import fingerprint
from pipeline.videos.boxes_files import boxes_file
from pipeline.videos.scan import Scan, Sighting, scan
from pipeline.videos.settings import VideoSettings


def kept_scan(path: Path, rate: float, settings: VideoSettings, folder: Path) -> Scan:
    """What `scan` finds in a video, from the file in `folder` where the video, its boxes and the settings are the same.

    The file is written aside and renamed; one of another version of the video is replaced.
    Raises what `scan` raises; failures are not kept.
    """
    kept = folder / f"{path.stem}-{fingerprint(path.resolve().as_posix())}.json"
    key = fingerprint(_code(), rate, settings, _stat(path), _stat(boxes_file(path)))
    try:
        content = json.loads(kept.read_text())
        if content["key"] == key:
            return _read(content["scan"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # absent, or damaged by something else than this module: look at the video
    found = scan(path, rate, settings)
    folder.mkdir(parents=True, exist_ok=True)
    aside = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps({"key": key, "scan": dataclasses.asdict(found)}))
    aside.replace(kept)
    return found


def _read(content: dict[str, Any]) -> Scan:
    sightings = [Sighting(**{**one, "box": tuple(one["box"])}) for one in content["sightings"]]
    return Scan(**{**content, "info": VideoInfo(**content["info"]), "sightings": sightings})


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change; None where there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


@cache
def _code() -> str:
    """Other code may find other persons, or other frames."""
    return fingerprint(code.hashes(("pipeline/frames.py", "pipeline/videos")))
