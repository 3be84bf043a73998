"""One video to tracks: sampled once from start to end, cut into shots, persons found and followed.

Who stands or walks upright is found frame by frame; who is not (sitting, seen to the waist, close
by) is found by moving, and must do so for longer to be believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import VideoInfo, stream_video, video_info
from pipeline.videos.boxes_files import GivenBox, boxes_file, read_boxes
from pipeline.videos.detection import Box, Detection, moving_persons
from pipeline.videos.motion import MotionMeter, Small, Step
from pipeline.videos.people import PeopleFinder
from pipeline.videos.settings import VideoSettings
from pipeline.videos.tracking import Demand, Track, link, settle

# Measured on six real videos: tracks of people have mean votes from 2.3 up, of other things up to 1.8.
UPRIGHT_VOTES = 2.0
MOVING_SHARE = 0.35
MOVING_SECONDS = 3.0


@dataclass(frozen=True)
class Sighting:
    """One person in one sampled frame."""

    video_frame: int
    shot: int
    track: int
    """Within the shot, or the person's number in a boxes file."""
    box: Box
    """x, y, width, height, px."""


@dataclass(frozen=True)
class Scan:
    info: VideoInfo
    sampled: int
    """Frames looked at."""
    missing: int
    """Sampled frames that the container declares and that do not decode."""
    shots: int
    sightings: list[Sighting]


@dataclass(frozen=True)
class _Sample:
    """What one sampled frame shows."""

    frame: int
    is_cut: bool
    camera: NDArray[np.float64]
    """See `motion.Step`."""
    upright: list[Detection]
    moving: list[Detection]


def scan(path: Path, rate: float, settings: VideoSettings) -> Scan:
    """Find and follow the persons of one video.

    Args:
        path: the video; where a boxes file lies beside it, the persons are taken from there.
        rate: frames per second to look at; no more than the video has.
        settings: what it takes to be a person.

    Raises FrameError when the video can not be opened, ValueError for a wrong boxes file.
    """
    info = video_info(path)
    step = max(info.fps / rate, 1.0)
    wanted = [round(n * step) for n in range(int((info.frames - 1) // step) + 1)]
    given = read_boxes(boxes_file(path)) if boxes_file(path).is_file() else None
    samples = list(_samples(path, wanted, settings, detect=given is None))
    starts = [n for n, sample in enumerate(samples) if sample.is_cut or n == 0]
    if given is not None:
        sightings = _given(given, samples, starts)
    else:
        sightings = []
        for shot, (start, end) in enumerate(zip(starts, [*starts[1:], len(samples)], strict=True)):
            for number, track in enumerate(_follow(samples[start:end], info.fps / step, settings)):
                for at, box in zip(track.steps, track.boxes, strict=True):
                    frame = samples[start + int(at)].frame
                    sightings.append(Sighting(frame, shot, number, _in_px(box, info)))
    missing = _missing(wanted, [sample.frame for sample in samples], info)
    return Scan(info, len(samples), missing, len(starts), sightings)


def _samples(path: Path, wanted: list[int], settings: VideoSettings, detect: bool) -> Iterator[_Sample]:
    meter, find = MotionMeter(), PeopleFinder(settings.min_height)
    before: Small | None = None
    held: tuple[_Sample, NDArray[np.float32]] | None = None  # waits for the motion that follows it
    for frame, image in stream_video(path, wanted):
        small = Small.of(image)
        step = meter.step(before, small) if before is not None else Step.first(small)
        before = small
        if held is not None:
            yield _with_moving(*held, step.motion, settings)
        held = _Sample(frame, step.is_cut, step.camera, find(image) if detect else [], []), step.motion
    if held is not None:
        yield _with_moving(*held, held[1], settings)


def _with_moving(
    sample: _Sample, into: NDArray[np.float32], out_of: NDArray[np.float32], settings: VideoSettings
) -> _Sample:
    return replace(sample, moving=moving_persons(np.maximum(into, out_of), settings.min_height))


def _follow(samples: Sequence[_Sample], fps: float, settings: VideoSettings) -> list[Track]:
    camera = [sample.camera for sample in samples]
    upright = link([sample.upright for sample in samples], camera, fps, settings.max_gap_s)
    people = settle(upright, fps, Demand(settings.min_seconds, UPRIGHT_VOTES, window_s=0.6, spread=0.3))
    # Motion shows now the arms and now the legs; the person is what all of it spans.
    moving = link([sample.moving for sample in samples], camera, fps, settings.max_gap_s)
    demand = Demand(max(MOVING_SECONDS, settings.min_seconds), MOVING_SHARE, window_s=1.4, spread=0.15)
    return people + settle(moving, fps, demand, known=people)


def _given(boxes: Sequence[GivenBox], samples: Sequence[_Sample], starts: Sequence[int]) -> list[Sighting]:
    shots = np.searchsorted(starts, np.arange(len(samples)), side="right") - 1
    shot_of = {sample.frame: int(shot) for sample, shot in zip(samples, shots, strict=True)}
    return [Sighting(one.frame, shot_of[one.frame], one.person, one.box) for one in boxes if one.frame in shot_of]


def _in_px(box: NDArray[np.float64], info: VideoInfo) -> Box:
    x, y, width, height = box.tolist()
    return x * info.width, y * info.height, width * info.width, height * info.height


def _missing(wanted: list[int], decoded: list[int], info: VideoInfo) -> int:
    """Sampled frames that did not decode; the very last may be a miscount of the container."""
    lost = sorted(set(wanted) - set(decoded))
    return 0 if lost and len(lost) == 1 and lost[0] >= info.frames - 2 else len(lost)
