"""COCO 2017: photographs without people, the backgrounds of rendered scenes.

Paper section 3.2 (synthetic pairs). Images with any annotated person are left out, so that
no second, unlabelled person stands behind the rendered one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Dataset, chunk, chunks
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.backgrounds import standin_photo

PERSON = 1
"""COCO's category id of a person."""
ANNOTATIONS = "annotations/instances_train2017.json"
IMAGES = "train2017"
NEEDED = frozenset({"images", "id", "file_name", "annotations", "image_id", "category_id"})
"""Keys of the instances that are read: with all others, outlines above all, every process that renders would hold
2.7 GB of the real file."""

CHUNK = 30


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: number and size in pixels of the photographs."""

    images: int
    width: int
    height: int


class Coco(Dataset):
    """Gives backgrounds and no records: the pairs of the paper take no people from it."""

    name = "coco"
    standin_sizes = Sizes
    standin_shows = "photographs"
    source = Source(
        homepage="https://cocodataset.org/#download",
        licence="annotations CC BY 4.0; each photograph keeps its Flickr licence",
        access="anonymous",
        how="Download and unpack both archives here; of the second only the instances of train2017 are read.",
        files=(
            SourceFile(
                name="train2017.zip",
                url="http://images.cocodataset.org/zips/train2017.zip",
                unpack_to=".",
                megabytes=19337,
                md5="cced6f7f71b7629ddf16f17bbcfab6b2",
            ),
            SourceFile(
                name="annotations_trainval2017.zip",
                url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
                unpack_to=".",
                megabytes=253,
                md5="f4bbac642086de4f52a3fdda2de5fa2c",
            ),
        ),
        layout=(
            Expected(patterns=(ANNOTATIONS,), meaning="which images hold people"),
            Expected(patterns=(f"{IMAGES}/*.jpg",), meaning="photographs"),
        ),
    )

    def background_images(self, root: Path, quarantine: Quarantine | None = None) -> list[Path]:
        """Photographs without an annotated person, sorted by image id.

        Listed images that are not on disk go to `quarantine`. Raises ValueError when the
        layout is not COCO's or the annotations are not readable.
        """
        self.source.require(root, self.name)
        path = root / ANNOTATIONS
        try:
            content = json.loads(path.read_bytes().decode(), object_hook=_needed)
            with_people = {a["image_id"] for a in content["annotations"] if a["category_id"] == PERSON}
            listed = sorted((image["id"], image["file_name"]) for image in content["images"])
        except (ValueError, KeyError, TypeError) as error:
            detail = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: not the instances file of COCO 2017 ({detail})") from error
        found = []
        for image_id, file_name in listed:
            if image_id in with_people:
                continue
            if (root / IMAGES / file_name).is_file():
                found.append(root / IMAGES / file_name)
            elif quarantine is not None:
                quarantine.add(f"{IMAGES}/{file_name}", "the image is missing")
        return found

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        self.background_images(root, quarantine)
        return iter(())

    def shards(self, sizes: Sizes) -> list[str]:
        return chunks(sizes.images, CHUNK)

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        for number in chunk(shard, sizes.images, CHUNK):
            rng = generator(seed, self.name, number)
            write_jpeg(folder / IMAGES / _file_name(number), standin_photo(rng, sizes.width, sizes.height))

    def finish(self, root: Path, sizes: Sizes) -> None:
        images = [
            {"id": number + 1, "file_name": _file_name(number), "width": sizes.width, "height": sizes.height}
            for number in range(sizes.images)
        ]
        categories = [{"id": PERSON, "name": "person"}]
        content = {"info": {"description": "stand-in"}, "images": images, "annotations": [], "categories": categories}
        path = root / ANNOTATIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def _needed(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key in NEEDED}


def _file_name(number: int) -> str:
    """`000000000001.jpg`: ids of the stand-in count from 1."""
    return f"{number + 1:012d}.jpg"


DATASET = Coco()
