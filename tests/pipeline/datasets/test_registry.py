"""Datasets are found by name, say where they come from and check their layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import datasets, run_spec
from pipeline.layout import PROJECT


def test_every_dataset_of_the_params_has_a_module_whose_stand_in_takes_its_sizes() -> None:
    params = run_spec.load(PROJECT / "params.yaml")
    assert set(params.datasets) == set(datasets.names())
    for name, section in params.datasets.items():
        dataset = datasets.get(name)
        assert dataset.name == name
        assert dataset.shards(dataset.sizes(section.standin))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no dataset is called 'h36m'; there are 3dpw, aist"):
        datasets.get("h36m")


@pytest.mark.parametrize("name", datasets.names())
def test_an_empty_folder_is_no_dataset_and_the_message_says_what_is_expected(name: str, tmp_path: Path) -> None:
    dataset = datasets.get(name)
    assert len(dataset.source.check(tmp_path)) == len(dataset.source.layout)
    first = dataset.source.layout[0].patterns[0].replace("*", r"\*")
    with pytest.raises(ValueError, match=f"found no {first}"):
        list(dataset.records(tmp_path))


@pytest.mark.parametrize("name", [name for name in datasets.names() if not name.startswith("synthetic")])
def test_every_dataset_tells_how_it_is_obtained(name: str) -> None:
    source = datasets.get(name).source
    assert source.homepage.startswith("https://")
    assert source.files
    text = (PROJECT / "data/raw" / name / "SOURCE.md").read_text()
    assert source.homepage in text
    for file in source.files:
        assert file.name in text
        assert file.md5 is None or file.md5 in text


@pytest.mark.parametrize("name", datasets.names())
def test_every_stand_in_has_the_layout_of_its_dataset_and_says_what_it_is(name: str, standins: Path) -> None:
    assert datasets.get(name).source.check(standins / name) == []
    assert f"Not {name}" in (standins / name / "STANDIN.md").read_text()


def test_wrong_sizes_of_a_stand_in_are_named() -> None:
    with pytest.raises(ValueError, match=r"datasets.coco.standin .* unknown \['pictures'\], missing \['images'\]"):
        datasets.get("coco").sizes({"pictures": 3, "width": 8, "height": 8})
