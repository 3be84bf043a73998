"""Own videos: persons are found upright or by moving, tracks end at cuts, damaged files are accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import manifests
from pipeline.datasets.quarantine import Quarantine
from pipeline.frames import read_video_frames, video_info
from pipeline.manifests import read_pairs, read_records, to_records
from pipeline.records import FrameRecord
from pipeline.run_spec import Crops, Pairs
from pipeline.videos import find_videos, kept_scans, pair_videos, parse_videos, read_videos
from pipeline.videos.boxes_files import read_boxes
from pipeline.videos.detection import Detection, moving_persons
from pipeline.videos.kept_scans import kept_scan
from pipeline.videos.motion import MotionMeter, Small, camera_motion
from pipeline.videos.people import PeopleFinder, join
from pipeline.videos.settings import VideoSettings
from pipeline.videos.tracking import Demand, link, overlaps, settle
from tests.pipeline.videos.moving_figure import FPS, background, walk, without_duration, write_video

PROJECT = Path(__file__).resolve().parents[3]
CROPS = Crops(size=80, scale=1.2)
LARGE = VideoSettings(min_height=0.3)
"""Quick: only people who fill a good part of the frame."""
DEMAND = Demand(seconds=1.0, score=0.35, window_s=1.0, spread=0.2)


def records_of(folder: Path, settings: VideoSettings = LARGE) -> tuple[list[FrameRecord], Quarantine]:
    quarantine = Quarantine()
    return list(read_videos(folder, 5.0, quarantine, folder / ".scans", settings=settings)), quarantine


def test_cuts_between_real_videos_are_seen_and_none_within_them(shared: Path) -> None:
    shots = []
    for name in ("openpose_street.avi", "sam2_hands_cups.mp4", "sam2_juggle.mp4", "mmpose_demo.mp4"):
        path = shared / "samples/videos" / name
        info = video_info(path)
        step = max(1, round(info.fps / 5))
        frames = read_video_frames(path, range(0, min(info.frames, 12 * step), step))
        shots.append([Small.of(frame) for frame in frames])
    meter = MotionMeter()
    joined = [frame for shot in shots for frame in shot]
    cuts = [number + 1 for number in range(len(joined) - 1) if meter.step(*joined[number : number + 2]).is_cut]
    assert cuts == np.cumsum([len(shot) for shot in shots])[:-1].tolist()


@pytest.mark.parametrize("pan", [0.0, 3.0])
@pytest.mark.parametrize("size", [(320, 240), (240, 320)])
def test_a_moving_person_is_followed_whether_the_camera_rests_or_turns(
    tmp_path: Path, pan: float, size: tuple[int, int]
) -> None:
    frames, boxes = walk(1, 4.0, size, pan)
    write_video(tmp_path / "walk.avi", frames)
    records, quarantine = records_of(tmp_path)
    assert len({record.subject for record in records}) == 1 and not quarantine.entries
    assert len(records) >= 0.7 * 4.0 * 5
    for record in records:
        assert record.video_frame is not None and record.time_s == pytest.approx(record.video_frame / FPS)
        assert (record.width, record.height) == size
        x, y, w, h = boxes[record.video_frame]
        left, top, width, height = record.box
        # The centre of the person lies in the box, and the box is about the person.
        assert left < x + w / 2 < left + width and top < y + h / 2 < top + height
        assert 0.7 * h < height < 2.0 * h


def test_a_person_is_followed_to_the_end_of_a_video_that_states_no_duration(tmp_path: Path) -> None:
    without_duration(write_video(tmp_path / "recorded.mkv", walk(1, 4.0)[0]))
    records, quarantine = records_of(tmp_path)
    assert len(records) >= 0.7 * 4.0 * 5 and not quarantine.entries
    assert max(record.video_frame or 0 for record in records) > 3.5 * FPS


def test_a_scene_at_rest_holds_nobody(tmp_path: Path) -> None:
    still = background(5, (320, 240))
    noise = np.random.default_rng(0).normal(0, 2, (30, *still.shape))
    write_video(tmp_path / "still.avi", list(np.clip(still + noise, 0, 255).astype(np.uint8)))
    records, quarantine = records_of(tmp_path)
    assert records == []
    assert [(e.file, e.reason) for e in quarantine.entries] == [("still.avi", "no person was found in the video")]


def test_a_camera_that_only_turns_moves_nobody() -> None:
    scene = background(7, (400, 240))
    before, after = Small.of(scene[:, :320]), Small.of(scene[:, 12:332])
    camera, followed = camera_motion(before.grey, after.grey)
    assert followed > 0.5 and camera[0, 2] == pytest.approx(-12, abs=0.3)
    step = MotionMeter().step(before, after)
    assert not step.is_cut and moving_persons(step.motion, 0.15) == []


def test_no_track_and_no_pair_crosses_a_cut(tmp_path: Path) -> None:
    first, _ = walk(11, 4.0)
    second, _ = walk(23, 4.0, start=0.25)
    write_video(tmp_path / "in/cut.avi", first + [255 - frame for frame in second])
    parse_videos(tmp_path / "in", tmp_path / "out", crops=CROPS, rate=5.0, settings=LARGE)
    records = {record.frame_id: record for record in to_records(read_records(tmp_path / "out/records.parquet"))}
    subjects = {record.subject for record in records.values()}
    assert len(subjects) >= 2
    for subject in subjects:
        sides = {(r.video_frame or 0) >= len(first) for r in records.values() if r.subject == subject}
        assert len(sides) == 1
    pair_videos(tmp_path / "out", pairs_params())
    for pair in read_pairs(tmp_path / "out/pairs.parquet").to_pylist():
        ends = [records[pair[f"{role}_frame_id"]].video_frame or 0 for role in ("target", "reference")]
        assert (ends[0] >= len(first)) == (ends[1] >= len(first))


def pairs_params() -> Pairs:
    return Pairs(
        max_view=50, max_pose=50, patch=8, input_size=64, min_human_patches=8,
        min_gap_s=0.2, max_gap_s=2.0, min_baseline_degrees=0.0, seed=0,
    )  # fmt: skip


def test_synchronised_views_of_one_person_give_both_kinds_of_pairs(tmp_path: Path) -> None:
    for camera in ("left", "right"):
        frames, _ = walk(31 if camera == "left" else 37, 4.0)
        write_video(tmp_path / f"in/take/{camera}.avi", frames)
    parse_videos(tmp_path / "in", tmp_path / "out", crops=CROPS, rate=5.0, settings=LARGE)
    counts = pair_videos(tmp_path / "out", pairs_params())
    assert counts["view"] > 3 and counts["pose"] > 3
    records = {row["frame_id"]: row for row in read_records(tmp_path / "out/records.parquet").to_pylist()}
    for pair in read_pairs(tmp_path / "out/pairs.parquet").to_pylist():
        if pair["kind"] == "view":
            target, reference = records[pair["target_frame_id"]], records[pair["reference_frame_id"]]
            assert target["video_frame"] == reference["video_frame"] and target["image"] != reference["image"]


def given_view(path: Path, fps: int, persons: dict[int, Sequence[int]]) -> None:
    """A video of nothing, with a boxes file that says in which frames each person is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for _ in range(1 + max(max(frames) for frames in persons.values())):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    lines = [f"{frame + 1},{person},10,5,20,40,1" for person, frames in persons.items() for frame in frames]
    path.with_suffix(".txt").write_text("\n".join(lines))


@pytest.mark.parametrize("rate", [5.0, 10.0, 27.0, 30.0, 60.0])
def test_one_frame_index_is_one_time_in_views_of_different_frame_rates(tmp_path: Path, rate: float) -> None:
    given_view(tmp_path / "take/left.avi", 25, {1: range(100)})
    given_view(tmp_path / "take/right.avi", 30, {1: range(120)})
    seen: dict[str, list[int]] = {"left.avi": [], "right.avi": []}
    for record in read_videos(tmp_path, rate, Quarantine(), tmp_path / ".scans"):
        seen[record.camera].append(record.frame_index)
        assert abs((record.time_s or 0.0) - record.frame_index / min(rate, 30)) <= 0.5 / 25 + 1e-9
    instants = {camera: set(found) for camera, found in seen.items()}
    assert all(len(instants[camera]) == len(found) for camera, found in seen.items())
    assert len(instants["left.avi"] & instants["right.avi"]) >= 4 * min(rate, 25)


def test_frames_of_a_single_video_are_counted_one_by_one_at_any_rate(tmp_path: Path) -> None:
    given_view(tmp_path / "clip.avi", 25, {1: range(20)})
    for rate, step in ((60.0, 1), (25.0, 1), (12.5, 2), (5.0, 5)):
        records = list(read_videos(tmp_path, rate, Quarantine(), tmp_path / ".scans"))
        assert [record.frame_index for record in records] == list(range(20 // step))
        assert [record.video_frame for record in records] == list(range(0, 20, step))


def test_who_comes_after_nobody_was_seen_in_any_view_is_another_person(tmp_path: Path) -> None:
    # The second person's track is lost in one view while the other still has it.
    given_view(tmp_path / "take/left.avi", 10, {1: range(10), 2: range(14, 20), 3: range(22, 30)})
    given_view(tmp_path / "take/right.avi", 10, {1: range(1, 12), 2: range(15, 30)})
    given_view(tmp_path / "alone/left.avi", 10, {1: range(10), 2: range(10, 20)})
    given_view(tmp_path / "alone/right.avi", 10, {7: range(10), 8: range(10, 20)})
    seen: dict[tuple[str, str], set[int]] = {}
    for record in read_videos(tmp_path, 10.0, Quarantine(), tmp_path / ".scans"):
        key = f"{record.sequence}/{record.camera.removesuffix('.avi')}", record.subject
        seen.setdefault(key, set()).add(record.frame_index)
    one, two = "shot000-person000", "shot000-person001"
    assert seen == {
        ("take/left", one): set(range(10)),
        ("take/right", one): set(range(1, 12)),
        ("take/left", two): {*range(14, 20), *range(22, 30)},
        ("take/right", two): set(range(15, 30)),
        ("alone/left", one): set(range(10)),
        ("alone/right", one): set(range(10)),
        ("alone/left", two): set(range(10, 20)),
        ("alone/right", two): set(range(10, 20)),
    }


def test_boxes_of_the_users_own_detector_are_taken_as_they_are(tmp_path: Path) -> None:
    frames, boxes = walk(41, 2.0)
    write_video(tmp_path / "in/clip.avi", frames)
    lines = [f"{n + 1},{person},{x + 9 * person},{y},{w},{h},0.9,-1,-1,-1" for n, (x, y, w, h) in enumerate(boxes)
             for person in (3, 4)]  # fmt: skip
    (tmp_path / "in/clip.txt").write_text("\n".join(lines))
    records, _ = records_of(tmp_path / "in")
    assert {record.subject for record in records} == {"shot000-person003", "shot000-person004"}
    assert len(records) == 2 * 10
    for record in records:
        x, y, w, h = boxes[record.video_frame or 0]
        assert record.box == pytest.approx((x + 9 * int(record.subject[-1]), y, w, h))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", r"line 1: expected `frame, id"),
        ("1,1,0,0,5,5\nx,1,0,0,5,5\n", r"line 2: expected `frame, id"),
        ("0,1,0,0,5,5\n", "frames are counted from 1"),
        ("1,1,0,0,5,5\n1,1,2,2,5,5\n", "line 2: person 1 stands twice in frame 1"),
    ],
)
def test_a_wrong_boxes_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(tmp_path / "a.txt")


def test_damaged_files_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    frames, _ = walk(51, 6.0)
    folder = tmp_path / "in"
    whole = write_video(folder / "whole.avi", frames).read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "text.mp4").write_text("not a video")
    (folder / "notes.md").write_text("ignored")
    counts = parse_videos(folder, tmp_path / "out", crops=CROPS, rate=5.0, settings=LARGE)
    assert counts["videos"] == 3 and counts["videos_with_persons"] == 2
    listed = json.loads((tmp_path / "out/records.quarantine.json").read_text())["entries"]
    reasons = {entry["file"]: entry for entry in listed}
    assert set(reasons) == {"cut.avi", "text.mp4"}
    assert "does not decode" in reasons["cut.avi"]["reason"] and reasons["cut.avi"]["records"] > 3
    assert "not a readable video" in reasons["text.mp4"]["reason"]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.3gp", "mp4v"), ("a.flv", "FLV1"), ("a.TS", "mp4v"), ("a.MTS", "mp4v"), ("a.m2ts", "mp4v"), ("a.mxf", "mpg2"),
     ("a.ogv", "VP80")],
)  # fmt: skip
def test_videos_of_phones_and_camcorders_are_read(tmp_path: Path, name: str, codec: str) -> None:
    written = tmp_path / name.lower()
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter_fourcc(*codec), 25, (320, 240))
    for _ in range(10):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    written.rename(tmp_path / name)
    (tmp_path / "a.txt").write_text("".join(f"{frame},1,10,5,20,40\n" for frame in range(1, 11)))
    assert len(list(read_videos(tmp_path, 5.0, Quarantine(), tmp_path / ".scans"))) == 2


def test_videos_in_deeper_folders_are_listed(tmp_path: Path) -> None:
    for name in ("take/left.avi", "2024/day/one.avi", "2024/day/noon/two.avi"):
        given_view(tmp_path / name, 10, {1: range(10)})
    records, quarantine = records_of(tmp_path)
    assert {record.image for record in records} == {"take/left.avi"}
    reason = "deeper than one folder below; move it up to have it read"
    deeper = [(entry.file, entry.reason) for entry in quarantine.entries]
    assert deeper == [("2024/day/noon/two.avi", reason), ("2024/day/one.avi", reason)]


def test_records_of_a_video_are_written_before_those_of_the_next_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "SPOOL_BATCH", 5)
    for name in ("a", "b", "c", "d"):
        given_view(tmp_path / f"in/{name}.avi", 10, {1: range(10), 2: range(5)})
    alive, most = 0, 0

    def forget() -> None:
        nonlocal alive
        alive -= 1

    def made(self: FrameRecord) -> None:
        nonlocal alive, most
        weakref.finalize(self, forget)
        alive += 1
        most = max(most, alive)

    monkeypatch.setattr(FrameRecord, "__post_init__", made)
    counts = parse_videos(tmp_path / "in", tmp_path / "out", crops=CROPS, rate=10.0)
    assert (counts["videos"], counts["videos_with_persons"], counts["tracks"], counts["records"]) == (4, 4, 8, 60)
    assert most <= 2 * 5 + 1


def test_a_folder_without_videos_or_without_persons_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        find_videos(tmp_path / "gone")
    with pytest.raises(ValueError, match="no video in it"):
        find_videos(tmp_path)
    write_video(tmp_path / "still.avi", [background(1, (64, 48))] * 10)
    with pytest.raises(ValueError, match="no person was found in any video"):
        parse_videos(tmp_path, tmp_path / "out", crops=CROPS, rate=5.0, settings=LARGE)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".scans", "records.quarantine.json"}


def test_overlap_of_boxes_is_intersection_over_union() -> None:
    table = overlaps([(0, 0, 2, 2), (5, 5, 1, 1)], [(1, 0, 2, 2), (0, 0, 2, 2)])
    assert np.allclose(table, [[1 / 3, 1], [0, 0]])
    assert overlaps([], [(0, 0, 1, 1)]).shape == (0, 1)


def test_two_who_walk_side_by_side_keep_their_own_tracks_over_a_gap() -> None:
    def at(step: int) -> list[Detection]:
        boxes = [Detection((0.1 + 0.01 * step, 0.2, 0.1, 0.5), 0.9), Detection((0.7 - 0.01 * step, 0.2, 0.1, 0.5), 0.8)]
        return [] if step in (7, 8) else boxes if step % 2 else boxes[::-1]

    tracks = settle(link([at(step) for step in range(20)], [np.eye(2, 3)] * 20, 5.0, 1.0), 5.0, DEMAND)
    assert len(tracks) == 2
    for track in tracks:
        assert list(track.steps) == list(range(20))
        assert abs(np.diff(track.boxes[:, 0] + track.boxes[:, 2] / 2)).max() < 0.03


def test_short_unsure_and_doubled_tracks_are_dropped() -> None:
    def run(start: int, length: int, x: float, score: float = 0.9) -> dict[int, Detection]:
        return {start + n: Detection((x, 0.2, 0.1, 0.5), score) for n in range(length)}

    people = [run(0, 20, 0.1), run(0, 3, 0.5), run(0, 20, 0.8, score=0.1)]
    frames = [[person[step] for person in people if step in person] for step in range(20)]
    still = [np.eye(2, 3)] * 20
    kept = settle(link(frames, still, 5.0, 1.0), 5.0, DEMAND)
    assert len(kept) == 1 and kept[0].boxes[0, 0] == pytest.approx(0.1)
    doubled = link([[Detection((0.1, 0.2, 0.1, 0.5), 0.9)]] * 20, still, 5.0, 1.0) * 2
    assert len(settle(doubled, 5.0, DEMAND)) == 1
    assert settle(doubled, 5.0, DEMAND, known=kept) == []


def test_who_stands_still_is_followed_while_the_camera_turns() -> None:
    pan = np.array([[1.0, 0, -0.12], [0, 1, 0]])
    frames = [[Detection((0.8 - 0.12 * n, 0.2, 0.1, 0.5), 1.0)] if n != 3 else [] for n in range(6)]
    followed = link(frames, [np.eye(2, 3), *[pan] * 5], 5.0, 1.0)
    assert [list(track.steps) for track in followed] == [list(range(6))]
    assert len(link(frames, [np.eye(2, 3)] * 6, 5.0, 1.0)) > 1


def test_windows_that_agree_are_one_person_and_a_lonely_one_is_chance() -> None:
    boxes = np.array([[0.1, 0.1, 0.1, 0.5], [0.11, 0.1, 0.1, 0.52], [0.12, 0.3, 0.05, 0.25], [0.7, 0.2, 0.1, 0.5]])
    people = join(boxes, np.array([1.0, 1.0, 1.6, 0.9]))
    assert len(people) == 1 and people[0].score == pytest.approx(2.0)
    assert people[0].box == pytest.approx((0.105, 0.1, 0.1, 0.51))


def test_two_who_stand_side_by_side_are_two_persons(shared: Path) -> None:
    frame = read_video_frames(shared / "samples/videos/mmhuman3d_two_people_portrait.mp4", [0])[0]
    left, right = sorted(PeopleFinder(0.25)(frame), key=lambda person: person.box)
    assert left.box[0] + left.box[2] < right.box[0]
    for x, feet in ((left, 0.74), (right, 0.68)):
        assert x.box[1] + x.box[3] == pytest.approx(feet, abs=0.06)


def test_a_video_is_looked_at_once_until_it_or_the_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "walk.avi", walk(71, 3.5)[0])
    first = kept_scan(video, 5.0, LARGE, tmp_path / "scans")
    assert first.sightings and len(list((tmp_path / "scans").iterdir())) == 1
    looked = []
    monkeypatch.setattr("pipeline.videos.kept_scans.scan", lambda *a: looked.append(a) or first)
    assert kept_scan(video, 5.0, LARGE, tmp_path / "scans") == first and not looked
    kept_scan(video, 5.0, VideoSettings(min_height=0.3, min_seconds=1.5), tmp_path / "scans")
    (tmp_path / "walk.txt").write_text("1,1,0,0,5,5\n")
    kept_scan(video, 5.0, VideoSettings(min_height=0.3, min_seconds=1.5), tmp_path / "scans")
    assert len(looked) == 2
    (kept,) = (tmp_path / "scans").iterdir()
    kept.write_text(kept.read_text()[:100])
    kept_scan(video, 5.0, VideoSettings(min_height=0.3, min_seconds=1.5), tmp_path / "scans")
    assert len(looked) == 3


def test_other_code_that_decodes_looks_at_videos_again(
    monkeypatch: pytest.MonkeyPatch, other_code: Callable[[str], Path]
) -> None:
    before = kept_scans._code()
    monkeypatch.setattr("pipeline.code.PROJECT", other_code("pipeline/frames.py"))
    assert kept_scans._code.__wrapped__() != before


def test_the_command_line_writes_everything_and_reports_errors_plainly(tmp_path: Path) -> None:
    frames, _ = walk(61, 4.0)
    write_video(tmp_path / "in/walk.avi", frames)
    command = [sys.executable, "-m", "pipeline.videos"]
    command += ["--videos", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"records.parquet", "crops.arrow", "pairs.parquet", "tracks.png", "pairs.png", "summary.json"} <= names
    assert json.loads((tmp_path / "out/summary.json").read_text())["pair"]["pose"] > 0
    (tmp_path / "empty").mkdir()
    command[4] = str(tmp_path / "empty")
    failed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "no video in it" in failed.stderr and "Traceback" not in failed.stderr


def test_real_videos_give_their_people_and_nobody_where_only_hands_are_seen(shared: Path, tmp_path: Path) -> None:
    # Standing and walking, squatting, juggling, and hands that move cups.
    names = ("mmhuman3d_two_people_portrait.mp4", "tfjs_squats_portrait.mp4", "sam2_juggle.mp4", "sam2_hands_cups.mp4")
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (*names, "edge_cases/unordered_pts.mov"):
        (folder / Path(name).name).symlink_to(shared / "samples/videos" / name)
    quarantine = Quarantine()
    records = list(read_videos(folder, 2.0, quarantine, tmp_path / "scans", settings=LARGE))
    tracks = {name: [record.subject for record in records if record.image == name] for name in names}
    assert [len(set(tracks[name])) for name in names] == [2, 1, 1, 0]
    # They are seen nearly all the time, of 7, 26 and 21 sampled frames.
    assert np.all([len(tracks[name]) for name in names[:3]] >= np.array([12, 22, 18]))
    assert {"unordered_pts.mov", "sam2_hands_cups.mp4"} <= {entry.file for entry in quarantine.entries}
    for record in records:
        info = video_info(folder / record.image)
        assert 0 <= (record.video_frame or 0) < info.frames and record.width == info.width
        assert record.box[3] > 0.3 * info.height
