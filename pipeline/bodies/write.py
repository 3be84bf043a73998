"""Writes the open body, the open hand and their measured quality: what `python -m pipeline.bodies` runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import run_spec
from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body
from pipeline.bodies.build_hand import build_hand
from pipeline.bodies.model import load
from pipeline.bodies.quality import measure
from pipeline.layout import Layout


def write_npz(path: Path, arrays: dict[str, NDArray]) -> None:
    """Compressed .npz with the same bytes for the same arrays, moved into place when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub types ** as allow_pickle
    _replace(path, buffer.getvalue())


def write_json(path: Path, values: dict[str, float]) -> None:
    """Numbers to four digits, so that the last bit of a sum changes nothing."""
    rounded = {key: round(value, 4) for key, value in values.items()}
    _replace(path, (json.dumps(rounded, indent=1) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    aside.replace(path)


def build(layout: Layout, params: run_spec.Bodies) -> dict[str, float]:
    """Write the body, the hand and their measured quality; returns the latter."""
    shapes_rng, heldout_rng, hand_rng, pose_rng = np.random.default_rng(params.seed).spawn(4)
    source = AnnySource()
    people = source.sample_adults(params.num_shapes, shapes_rng)
    arrays = build_body(source, people)
    write_npz(layout.smpl, arrays)
    write_npz(layout.mano, build_hand(source, people, hand_rng))
    unseen = source.sample_adults(params.num_heldout, heldout_rng)
    quality = measure(source, load(layout.smpl), arrays, unseen, pose_rng)
    quality |= {"hand_vertices": load(layout.mano, "mano").num_vertices}
    write_json(layout.bodies / "quality.json", quality)
    return quality
