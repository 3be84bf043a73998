"""Completions of own videos: drawn with any network that completes images, and refused plainly with any other."""

from __future__ import annotations

import json
import logging
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from models import catalog, checkpoints
from models.pgn import PGN
from pipeline import run_spec
from pipeline.crops import Crop, CropStore, Square, encode_jpeg, write_crops
from pipeline.frames import read_image
from pipeline.manifests import read_pairs, write_records
from pipeline.pairs.selection import write_selection
from pipeline.records import FrameRecord
from pipeline.run_spec import Params
from pipeline.silhouettes import pack
from pipeline.videos import KINDS, completing_network
from pipeline.videos.completions import _captions, complete_pairs
from pipeline.videos.sheets import as_data_url, write_sheets

PROJECT = Path(__file__).resolve().parents[3]
NUM_FRAMES = 8


@pytest.fixture(scope="module")
def params() -> Params:
    return run_spec.load(PROJECT / "params.yaml")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, params: Params) -> tuple[Path, Path, Path]:
    """Records, crops with silhouettes and pairs of one person seen for some seconds."""
    folder, size = tmp_path_factory.mktemp("video"), params.crops.size
    rng = np.random.default_rng(0)
    silhouette = np.zeros((size, size), bool)
    silhouette[size // 8 : -size // 8, size // 3 : -size // 3] = True
    records = [
        FrameRecord(
            dataset="videos", split="train", sequence="walk.mp4", subject="person", camera="walk.mp4", frame_index=n,
            image="walk.mp4", video_frame=n, time_s=0.5 * n, width=320, height=240, box=(100.0, 20.0, 60.0, 200.0),
        )
        for n in range(NUM_FRAMES)
    ]  # fmt: skip
    write_records(records, folder / "records.parquet")
    square = Square.around((100.0, 20.0, 60.0, 200.0), 1.25)
    crops = [
        Crop(
            frame_id=record.frame_id, jpeg=encode_jpeg(_texture(rng, size)), square=square,
            silhouette=pack(silhouette), silhouette_source="pgn",
        )
        for record in records
    ]  # fmt: skip
    write_crops(folder / "crops.arrow", crops, size)
    store = CropStore(folder / "crops.arrow")
    counts = write_selection(folder / "records.parquet", store, folder / "pairs.parquet", params.pairs, KINDS)
    assert counts["pose"] > 3
    return folder / "records.parquet", folder / "crops.arrow", folder / "pairs.parquet"


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    return cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)


def _checkpoint(folder: Path, params: Params, run: str) -> Path:
    model = catalog.create(params.pretrain[run].network)
    checkpoints.save(folder / run, model, provenance={})
    return folder / run


@pytest.mark.parametrize(("run", "columns"), [("croco_body", 5), ("mae_body", 3)])
def test_a_sample_of_pairs_is_completed_and_measured(
    tmp_path: Path, files: tuple[Path, Path, Path], params: Params, run: str, columns: int
) -> None:
    checkpoint = _checkpoint(tmp_path, params, run)
    done = complete_pairs(checkpoint, *files, tmp_path / "out", params, count=4)
    assert done.drawn == 4 and done.measured >= 2
    assert set(done.losses) == ({"true", "same", "black"} if columns == 5 else {"true"})
    assert all(np.isfinite(loss) and loss > 0 for loss in done.losses.values())
    assert all(f"| {name} | {loss:.4f} |" in done.text() for name, loss in done.losses.items())
    sheet = read_image(done.sheet)
    assert sheet.shape[1] == columns * (128 + 4) and sheet.shape[0] > 4 * 128
    facts = json.loads((tmp_path / "out/completions.json").read_text())
    assert set(facts["pairs"]) <= set(read_pairs(files[2])["pair_id"].to_pylist())
    assert facts["sha256"] == checkpoints.fingerprint(checkpoint)
    again = complete_pairs(checkpoint, *files, tmp_path / "again", params, count=4)
    assert again.sheet.read_bytes() == done.sheet.read_bytes()


def test_captions_cost_no_more_where_there_are_many_other_pairs() -> None:
    count = 20_000
    names = pa.array([f"{number:016x}" for number in range(count)])
    pairs = pa.table(
        {
            "pair_id": names,
            "kind": ["view", "pose"] * (count // 2),
            "target_frame_id": names,
            "dt_seconds": [None, 0.5] * (count // 2),
        }
    )
    records = pa.table({"frame_id": names, "image": ["walk.mp4"] * count})
    ids = [names[7].as_py(), names[4].as_py()]
    tracemalloc.start()
    try:
        assert _captions(ids, pairs, records) == ["walk.mp4  +0.50 s", "walk.mp4  two views"]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_completes_no_images_is_refused(tmp_path: Path, files: tuple[Path, Path, Path], params: Params) -> None:
    checkpoints.save(tmp_path / "pgn", PGN(width=0.05, depths=(1, 1, 1, 1)), provenance={})
    with pytest.raises(ValueError, match="completes no images"):
        complete_pairs(tmp_path / "pgn", *files, tmp_path, params)


def test_without_a_trained_network_it_is_said_how_to_get_one(
    tmp_path: Path, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert completing_network(None, params.model_copy(update={"scale": "no_such_scale"})) is None
    assert "make repro" in caplog.text
    with pytest.raises(ValueError, match="no checkpoint there"):
        completing_network(tmp_path / "gone", params)
    checkpoint = _checkpoint(tmp_path, params, "croco_body")
    assert completing_network(checkpoint, params) == checkpoint


def test_sheets_show_tracks_and_pairs_and_fit_into_a_page(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    tracks, pairs = write_sheets(*files, tmp_path)
    assert (tracks.name, pairs.name) == ("tracks.png", "pairs.png")
    assert as_data_url(tracks).startswith("data:image/jpeg;base64,")
    assert read_image(tracks).shape[1] > 12 * 80
