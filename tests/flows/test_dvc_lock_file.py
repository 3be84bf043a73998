"""A lock file changed stage by stage is the one that DVC writes."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import _yaml

from flows.dvc_lock_file import stage_by_stage
from pipeline.layout import PROJECT

OTHER = {
    "cmd": "python -m pipeline.training.pretrain --params params.yaml --run a_name_so_long_that_the_line_is_folded",
    "deps": [{"path": "data/a b.txt", "hash": "md5", "md5": "1" * 32, "size": 3}],
    "params": {
        "params.yaml": {"run": {"lr": 1e-3, "name": "007", "note": "a: b", "none": None, "list": [1, [2, "x"]]}}
    },
}


def change(path: Path, modify: Any, stages: dict[str, Any]) -> str:
    """The file afterwards, with the stages in it as DVC puts them there."""
    with modify(str(path), _yaml.parse_yaml_for_update, _yaml._dump) as content:
        content.setdefault("schema", "2.0")
        content["stages"] = content.get("stages", {})
        content["stages"].update(copy.deepcopy(stages))
    return path.read_text()


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Paths of one lock file for DVC, one for us."""
    paths = tmp_path / "dvcs" / "dvc.lock", tmp_path / "ours" / "dvc.lock"
    for path in paths:
        path.parent.mkdir()
    return paths


@pytest.mark.parametrize("known", [True, False])
def test_the_file_is_the_one_that_dvc_writes(both: tuple[Path, Path], known: bool) -> None:
    for path in both:
        shutil.copy(PROJECT / "dvc.lock", path)
    name = "pretrain@croco_body" if known else "pretrain@one-more.5"
    assert (name in both[0].read_text()) == known
    ours = change(both[1], stage_by_stage(_yaml._modify_data), {name: OTHER})
    assert ours == change(both[0], _yaml._modify_data, {name: OTHER})
    assert ours != (PROJECT / "dvc.lock").read_text()


def test_what_dvc_notes_besides_stages_is_kept(both: tuple[Path, Path]) -> None:
    for path, modify in zip(both, (_yaml._modify_data, stage_by_stage(_yaml._modify_data)), strict=True):
        path.write_text("schema: '2.0'\nstages:\n  first:\n    cmd: echo\n")
        with modify(str(path), _yaml.parse_yaml_for_update, _yaml._dump) as content:
            content["datasets"] = [{"name": "more"}]
    assert both[1].read_text() == both[0].read_text()


def test_what_stays_is_not_written_anew(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PROJECT / "tables" / "dvc.lock", both[1])
    dumped: list[str] = []
    dump = _yaml._dump

    def noted(data: dict[str, Any], stream: Any) -> None:
        dumped.extend(data["stages"])
        dump(data, stream)

    monkeypatch.setattr(_yaml, "_dump", noted)
    before = both[1].read_text()
    after = change(both[1], stage_by_stage(_yaml._modify_data), {"pretrain_study@study": OTHER})
    assert dumped == ["pretrain_study@study"]
    changed = [pair for pair in zip(stages(before), stages(after), strict=True) if len(set(pair)) > 1]
    assert [new.partition(":")[0] for _, new in changed] == ["pretrain_study@study"]


def stages(lock: str) -> list[str]:
    return re.split(r"^  (?=\S)", lock, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "schema: '2.0'\nstages: {}\n",
        "schema: '2.0'\nstages:\n  first:\n    cmd: echo",
        "schema: '2.0'\nstages:\n  first:\n    cmd: echo\ndatasets:\n- name: more\n",
        "schema: '2.0'\nstages:\n  first:   # by hand\n    cmd: echo\n  'second': {cmd: echo}\n",
        "# by hand\nschema: '2.0'\nstages:\n  first:\n    cmd: |\n      echo\n\n      done\n",
    ],
)
def test_files_that_dvc_did_not_write_go_its_own_way(both: tuple[Path, Path], text: str | None) -> None:
    for path in both:
        if text is not None:
            path.write_text(text)
    ours = change(both[1], stage_by_stage(_yaml._modify_data), {"other": OTHER})
    assert _yaml.parse_yaml(ours, "") == _yaml.parse_yaml(change(both[0], _yaml._modify_data, {"other": OTHER}), "")
