"""The picture of the README: rows of the report's own tiles."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.layout import PROJECT
from pipeline.reporting.overview import OVERVIEW, ROWS, WIDTH, OverviewError, overview
from pipeline.reporting.pictures import Gallery, Tile
from pipeline.run_spec import load

COLOURS = {"people": (250, 0, 0), "pairs": (0, 250, 0), "completions": (0, 0, 250), "meshes": (250, 0, 250)}
CAPTIONS = {"people": "synthetic", "pairs": "aist, cross-view", "completions": "croco_body: pair 1"} | {
    "meshes": "from croco_body, seed 0: frame 1"
}


def tile(colour: tuple[int, int, int], caption: str) -> Tile:
    out = io.BytesIO()
    Image.new("RGB", (80, 40), colour).save(out, "JPEG", quality=95)
    return Tile(out.getvalue(), 80, 40, caption)


@pytest.fixture
def galleries() -> list[Gallery]:
    """As many tiles as are wanted of each, and one of another run and data set before them."""
    shown = {
        name: [tile((0, 0, 0), "interhand: another"), *[tile(COLOURS[name], CAPTIONS[name])] * ROWS[name][1]]
        for name in ROWS
    }
    shown["people"].pop(0)  # any will do
    return [Gallery(name, name, "", tiles) for name, tiles in shown.items()]


def test_every_row_is_as_wide_as_the_picture_and_shows_what_it_says(galleries: list[Gallery]) -> None:
    sheet = overview(galleries, load(PROJECT / "params.yaml"))
    assert sheet.width == WIDTH
    seen = {sheet.getpixel((x, y)) for x in range(0, WIDTH, 7) for y in range(0, sheet.height, 3)}
    for colour in COLOURS.values():
        assert any(max(abs(a - b) for a, b in zip(colour, pixel, strict=True)) < 8 for pixel in seen)
    right = [sheet.getpixel((WIDTH - 8, y)) for y in range(sheet.height)]
    assert sum(pixel != (255, 255, 255) for pixel in right) > sheet.height / 2


def test_without_its_pictures_it_says_what_is_missing(galleries: list[Gallery]) -> None:
    galleries[-1].tiles.pop()
    galleries[-1].absent.append("from croco_body, seed 0: no pictures yet; `dvc repro` draws them")
    with pytest.raises(OverviewError, match=r"3 pictures of meshes are wanted, there are 2: .*dvc repro"):
        overview(galleries, load(PROJECT / "params.yaml"))


def test_the_readme_shows_it() -> None:
    assert OVERVIEW.is_file()
    assert f"({OVERVIEW.relative_to(PROJECT)})" in (PROJECT / "README.md").read_text()
