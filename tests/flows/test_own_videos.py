"""The pair flow on a folder of own videos, through a real server: from video to completions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models import catalog, checkpoints
from pipeline import run_spec
from pipeline.layout import PROJECT
from pipeline.manifests import read_pairs, read_records
from pipeline.videos import NAME, claim, layout_of, scans_of
from tests.flows.server_talk import ask
from tests.pipeline.videos.moving_figure import walk, write_video


@pytest.mark.slow
def test_a_folder_of_videos_becomes_crops_pairs_and_completions(server: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / f"own_videos_{os.getpid()}"  # names the folder of the project it goes to
    write_video(folder / "walk.avi", walk(3, 4.0)[0])
    (folder / "text.mp4").write_text("not a video")
    (folder / os.fsdecode(b"r\xe4ume.mp4")).write_text("its name is not UTF-8")
    params = run_spec.load(PROJECT / "params.yaml")
    checkpoints.save(tmp_path / "croco_body", catalog.create(params.pretrain["croco_body"].network), provenance={})
    command = [sys.executable, "-m", "flows.pair", "--videos", str(folder)]
    layout = layout_of(folder)
    try:
        subprocess.run([*command, "--checkpoint", str(tmp_path / "croco_body")], cwd=PROJECT, env=server, check=True)
        records, pairs = read_records(layout.records(NAME)), read_pairs(layout.pairs("body", NAME))
        assert set(records["image"].to_pylist()) == {"walk.avi"} and pairs.num_rows > 10
        listed = json.loads(layout.records(NAME).with_suffix(".quarantine.json").read_text())["entries"]
        assert [entry["file"] for entry in listed] == [os.fsdecode(b"r\xe4ume.mp4"), "text.mp4"]
        assert (layout.data / "SOURCE.txt").read_text() == str(folder)
        drawn = {path.name for path in layout.pictures("pair", NAME).iterdir()}
        assert drawn == {"tracks.png", "pairs.png", "completions.png", "completions.json"}
        url = json.loads((Path(server["PREFECT_HOME"]) / "server.json").read_text())["url"]
        found = ask(f"{url}/artifacts/latest/filter", {"artifacts": {"key": {"like_": "own-videos-%"}}})
        assert {item["key"] for item in found} >= {"own-videos-tracks", "own-videos-pairs", "own-videos-completions"}
        # A folder without a video is the user's to mend: one line says what is wrong.
        shutil.rmtree(folder)
        folder.mkdir()
        failed = subprocess.run(command, cwd=PROJECT, env=server, capture_output=True, text=True, check=False)
        assert failed.returncode != 0 and "no video in it" in failed.stderr
    finally:
        shutil.rmtree(layout.data, ignore_errors=True)
        shutil.rmtree(scans_of(folder), ignore_errors=True)


def test_results_of_another_folder_of_the_same_name_are_left_alone(tmp_path: Path) -> None:
    first, second = tmp_path / f"Own videos {os.getpid()}", tmp_path / "more" / f"own_videos_{os.getpid()}"
    first.mkdir()
    second.mkdir(parents=True)
    try:
        claim(first)
        claim(first)
        with pytest.raises(ValueError, match=f"results of another folder, {first}; rename one of the two, or remove"):
            claim(second)
        claim(first)
    finally:
        shutil.rmtree(layout_of(first).data)
