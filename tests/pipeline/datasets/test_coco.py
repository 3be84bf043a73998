"""COCO: which photographs show nobody is read without holding what else the annotations say."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from pipeline import datasets


def test_outlines_of_what_the_photographs_show_are_not_held(tmp_path: Path) -> None:
    """The real file has 450 MB, most of it outlines, and each process that renders reads it."""
    outline = [[number / 8 for number in range(1000, 1800)]]
    annotations = [{"id": n, "image_id": n % 2, "category_id": 1, "segmentation": outline} for n in range(1000)]
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)]
    path = tmp_path / "annotations/instances_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    (tmp_path / "train2017").mkdir()
    for image in images:
        (tmp_path / "train2017" / str(image["file_name"])).touch()
    coco = datasets.get("coco")
    tracemalloc.start()
    try:
        assert coco.background_images(tmp_path) == [tmp_path / "train2017/2.jpg"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * path.stat().st_size, "its bytes and its text, and no more"
