"""What the doctor says of folders that are empty, half filled or wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import doctor, run_spec
from pipeline.layout import PROJECT, Layout
from pipeline.reporting import paper


@pytest.fixture
def found(tmp_path: Path) -> dict[str, doctor.Diagnosis]:
    params = run_spec.load(PROJECT / "params.yaml")
    layout = replace(Layout(params.scale), root=tmp_path)
    (layout.raw("3dpw")).mkdir(parents=True)
    (layout.raw("3dpw") / "notes.txt").write_text("nothing of 3DPW")
    (layout.raw("humbi")).mkdir(parents=True)
    (layout.raw("humbi") / "SOURCE.md").write_text("how to get it")
    (layout.raw("humbi") / ".DS_Store").write_bytes(b"left by a file manager")
    return {item.name: item for item in doctor.diagnose(params, layout, paper.load(PROJECT / "reports"))}


def test_a_folder_with_its_source_note_and_hidden_files_alone_is_stood_in_for(
    found: dict[str, doctor.Diagnosis],
) -> None:
    assert found["humbi"].state == "stand-in"
    assert found["humbi"].folder == "data/raw/humbi"
    assert found["humbi"].homepage.startswith("https://")


def test_a_folder_with_something_else_has_the_wrong_layout_and_is_told_what_is_missing(
    found: dict[str, doctor.Diagnosis],
) -> None:
    assert found["3dpw"].state == "wrong layout"
    assert any("sequenceFiles" in problem for problem in found["3dpw"].problems)


def test_cells_rest_on_what_their_run_was_trained_and_tested_with(found: dict[str, doctor.Diagnosis]) -> None:
    cells = {name: dict(cell.split(": ") for cell in item.cells) for name, item in found.items()}
    # Four rows (random, CroCo, MAE-Body, CroCo-Body) of two errors; two are of pre-training on people, one on scenes.
    assert cells["3dpw"]["Figure 3(a)"] == cells["coco_part_eft"]["Figure 3(a)"] == "8 cells"
    assert cells["humbi"]["Figure 3(a)"] == "4 cells"
    assert cells["habitat"]["Figure 3(a)"] == cells["habitat"]["Table 1(c)"] == "2 cells"


def test_files_that_nothing_stands_in_for_are_listed_where_the_scale_needs_them(tmp_path: Path) -> None:
    params = run_spec.load(PROJECT / "params.yaml")
    layout = replace(Layout(params.scale), root=tmp_path)
    assert doctor.diagnose_files(params, layout) == []
    (layout.raw("3dpw") / "imageFiles").mkdir(parents=True)
    layout.raw("smpl").mkdir()
    (layout.raw("smpl") / "SMPL_NEUTRAL.pkl").touch()
    (bodies,) = doctor.diagnose_files(params, layout)
    assert (bodies.name, bodies.state) == ("smpl", "missing")
    assert [file.split(" or ")[0] for file in bodies.files] == [
        "SMPL_MALE.pkl",
        "SMPL_FEMALE.pkl",
        "J_regressor_h36m.npy",
    ]
    paper_scale = run_spec.load(PROJECT / "scales/paper/params.yaml")
    states = {item.name: item.state for item in doctor.diagnose_files(paper_scale, layout)}
    assert states["weights CroCo.pth"] == states["weights mae_pretrain_vit_base.pth"] == "missing"


def test_the_machine_of_these_tests_can_render() -> None:
    checks = {
        check.name: check for check in doctor.check_machine(run_spec.load(PROJECT / "params.yaml"), Layout("mini"))
    }
    assert checks["off-screen rendering (EGL)"].ok, checks["off-screen rendering (EGL)"].found
    assert checks["Python 3.11 to 3.13"].ok
