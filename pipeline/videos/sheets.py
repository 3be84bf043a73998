"""Contact sheets: the quickest way to see whether tracks and pairs are what they should be."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from pipeline.crops import CropStore
from pipeline.frames import Pixels, read_image
from pipeline.manifests import read_pairs, read_records

GREEN = (40, 220, 90)
TEXT_HEIGHT = 14


def write_sheets(records: Path, crops: Path, pairs: Path, out: Path) -> list[Path]:
    """Write `tracks.png` and, where there are pairs, `pairs.png` into `out`; returns what was written."""
    store, found = CropStore(crops), read_pairs(pairs)
    sheets = {"tracks": track_sheet(read_records(records), store)}
    if found.num_rows:
        sheets["pairs"] = pair_sheet(found, store)
    for name, sheet in sheets.items():
        write_sheet(sheet, out / f"{name}.png")
    return [out / f"{name}.png" for name in sheets]


def track_sheet(records: pa.Table, store: CropStore, columns: int = 12, max_tracks: int = 60) -> Pixels:
    """One row per track, `columns` crops spread over its time, silhouettes outlined."""
    tracks: dict[tuple[str, str, str], list[str]] = {}
    for row in records.select(["sequence", "subject", "camera", "frame_id"]).to_pylist():
        tracks.setdefault((row["sequence"], row["camera"], row["subject"]), []).append(row["frame_id"])
    rows = []
    for (sequence, _, subject), frames in list(tracks.items())[:max_tracks]:
        crops = [row for row in store.rows(frames).tolist() if row >= 0]
        chosen = [crops[i] for i in np.unique(np.linspace(0, len(crops) - 1, min(columns, len(crops))).astype(int))]
        title = f"{sequence}  {subject}  {len(frames)} frames"
        rows.append(_row([_outlined(store, row) for row in chosen], columns, title))
    return np.concatenate(rows)


def pair_sheet(pairs: pa.Table, store: CropStore, columns: int = 6, max_rows: int = 12) -> Pixels:
    """Pairs spread over the manifest, target left and reference right, with kind and gap."""
    chosen = np.unique(np.linspace(0, pairs.num_rows - 1, min(columns * max_rows, pairs.num_rows)).astype(int))
    tiles = []
    for pair in pairs.take(pa.array(chosen)).to_pylist():
        gap = "view" if pair["kind"] == "view" else f"{pair['dt_seconds']:+.2f} s"
        both = np.hstack([_outlined(store, pair["target_crop"]), _outlined(store, pair["reference_crop"])])
        tiles.append(titled(both, gap))
    rows = [_row(tiles[start : start + columns], columns, "") for start in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def titled(image: Pixels, title: str) -> Pixels:
    """The picture below a line of text."""
    strip = np.full((TEXT_HEIGHT, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, title, (2, TEXT_HEIGHT - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, image])


def write_sheet(sheet: Pixels, path: Path) -> None:
    """PNG, written aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(encoded.tobytes())
    aside.replace(path)


def as_data_url(path: Path) -> str:
    """A sheet as a `data:` address, JPEG: a page shows it without being able to read files."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _outlined(store: CropStore, row: int) -> Pixels:
    image = store.image(row)
    silhouette = store.silhouette(row)
    if silhouette is not None:
        outlines, _ = cv2.findContours(silhouette.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, outlines, -1, GREEN, 1)
    return image


def _row(tiles: list[Pixels], columns: int, title: str) -> Pixels:
    height, width = tiles[0].shape[:2]
    row = np.full((height + 4, columns * (width + 4), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row[:height, number * (width + 4) : number * (width + 4) + width] = tile
    return titled(row, title) if title else row
