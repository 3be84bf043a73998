"""`python -m pipeline.reporting.overview`: one picture of what the graph does, for the top of the README.

Its tiles are those of the report's galleries, spread over each: nothing is picked by its looks.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.layout import PROJECT, Layout
from pipeline.process import plain_errors
from pipeline.reporting.pictures import Gallery, Tile, galleries
from pipeline.run_spec import Params, load

OVERVIEW = PROJECT / "reports/overview.jpg"
WIDTH, GAP, TITLE = 1400, 12, 40
"""Of the picture, between tiles, and the height of a row's title, in pixels."""
ROWS = {
    "people": ("", 2, "Rendered: one instant, several cameras"),
    "pairs": ("{body}", 4, "Paired: target with the person's patches, reference"),
    "completions": (
        "croco_body: pair", 3, "Completed by CroCo-Body: target, what it sees, prediction, reference (below: black)"
    ),
    "meshes": ("from croco_body,", 3, "Fine-tuned: image, recovered body mesh, the mesh from the side"),
}  # fmt: skip
"""Gallery -> how the captions of the tiles in question begin ({body}: with a data set of bodies), how many are shown,
what is written above them."""


class OverviewError(ValueError):
    """A gallery has too few tiles."""


def overview(shown: Sequence[Gallery], params: Params) -> Image.Image:
    """The rows of `ROWS`, each as wide as the picture. Raises OverviewError when a gallery has too few tiles."""
    by_id = {gallery.id: gallery for gallery in shown}
    body = "|".join(re.escape(name) for name, dataset in params.datasets.items() if dataset.pool == "body")
    rows = []
    for name, (caption, count, title) in ROWS.items():
        tiles = [tile for tile in by_id[name].tiles if re.match(caption.format(body=body), tile.caption)]
        if len(tiles) < count:
            missing = "; ".join(by_id[name].absent) or "run `make repro` first"
            raise OverviewError(f"{count} pictures of {name} are wanted, there are {len(tiles)}: {missing}")
        chosen = [tiles[place] for place in np.linspace(0, len(tiles) - 1, count).round().astype(int)]
        rows.append((title, _row(chosen)))
    sheet = Image.new("RGB", (WIDTH, sum(TITLE + row.height + GAP for _, row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for title, row in rows:
        draw.text((0, top + TITLE // 2), title, fill="black", anchor="lm", font=ImageFont.load_default(22))
        sheet.paste(row, (0, top + TITLE))
        top += TITLE + row.height + GAP
    return sheet


def _row(tiles: Sequence[Tile]) -> Image.Image:
    """Side by side and of one height, together as wide as the picture."""
    shape = sum(tile.width / tile.height for tile in tiles)
    height = round((WIDTH - GAP * (len(tiles) - 1)) / shape)
    row = Image.new("RGB", (WIDTH, height), "white")
    left = 0
    for tile in tiles:
        width = round(tile.width * height / tile.height)
        row.paste(Image.open(io.BytesIO(tile.jpeg)).resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="python -m pipeline.reporting.overview",
        description="Draw reports/overview.jpg, the picture of the README, from what `make repro` left behind.",
    ).parse_args(arguments)
    with plain_errors("overview"):
        params = load(PROJECT / "params.yaml")
        sheet = overview(galleries(Layout(params.scale), params), params)
        aside = OVERVIEW.with_suffix(".jpg.tmp")
        sheet.save(aside, "JPEG", quality=85, optimize=True)
        aside.replace(OVERVIEW)


if __name__ == "__main__":
    main()
