"""The whole report in a temporary project: complete, whole without a network, the same bytes twice."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from markupsafe import escape

from pipeline.crops import Crop, CropStore, Square, encode_jpeg, write_crops
from pipeline.layout import PROJECT
from pipeline.manifests import write_pairs
from pipeline.records import frame_id
from pipeline.reporting import data_counts, figures
from pipeline.reporting.__main__ import main
from pipeline.run_spec import load
from pipeline.silhouettes import pack, patch_mask

PARAMS = str(PROJECT / "params.yaml")


def report(layout) -> Path:
    assert main(["--params", PARAMS, "--root", str(layout.root)]) == 0
    return layout.report


class Page(HTMLParser):
    """Ids, links and sources of a page, and whether its tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.opened: list[str] = []
        self.openers: list[str] = []
        self.in_svg = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in ("meta", "img", "br", "wbr", "link", "input"):
            self.opened.append(tag)
        self.in_svg += tag == "svg"
        if not self.in_svg and "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if "src" in values:
            self.sources.append(values["src"])
        if "data-open" in values:
            self.openers.append(values["data-open"])

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        self.in_svg -= tag == "svg"
        assert self.opened.pop() == tag


def test_the_page_needs_no_network_and_its_links_lead_somewhere(measured):
    folder = report(measured)
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert page.opened == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.openers) <= set(page.ids)
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not any("://" in link for link in page.links)
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) > 40
    (measured.root / "params.yaml").touch()
    assert [link for link in files if not (folder / link).exists()] == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_headline_opens_the_page_with_paper_ours_and_order(measured):
    text = (report(measured) / "index.html").read_text()
    first = text[text.index('id="headline"') : text.index('id="training"')]
    for shown in ("57.4", "104.0 ± 3.7", "holds", "CroCo-Body / CroCo-Hand", "not run"):
        assert shown in first


def test_errors_stand_beside_that_of_not_looking_at_the_image(measured):
    text = (report(measured) / "index.html").read_text()
    assert "has a PA-MPJPE of 123.4 mm on the same 320 images" in text


def test_a_checkout_with_numbers_and_no_data_says_that_they_are_of_stand_ins(measured):
    text = (report(measured) / "index.html").read_text()
    where = text[text.index("Where the images come from.") : text.index("Without looking:")]
    assert "Not made in this checkout yet, stand-ins when they are: coco, humbi, aist, 3dpw" in where
    assert "Stand-ins are rendered people" in where


def test_the_commands_behind_a_number_begin_with_the_first_pre_training(measured, write_metrics):
    """CroCo first, then CroCo-Body from it, then the fine-tunings."""
    write_metrics("croco_body_from_croco", 0, 110.0)
    for run in ("croco", "croco_body_from_croco", "croco_body"):
        path = measured.metrics("pretrain", run)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"stage": "pretrain", "run": run, "scale": measured.scale, "values": {}, "command": f"train {run}"}
        checkpoint = {"path": f"data/mini/checkpoints/{run}", "sha256": f"{len(run):064x}"}
        path.write_text(json.dumps(content | {"checkpoint": checkpoint}))
    text = (report(measured) / "index.html").read_text()
    behind = text[text.index('<dialog id="run-body_mesh-croco_body_from_croco"') :]
    behind = behind[: behind.index("</dialog>")]
    commands = behind[behind.index("<h3>Commands</h3><pre>") + len("<h3>Commands</h3><pre>") :].splitlines()
    assert commands[:2] == ["train croco", "train croco_body_from_croco"]
    assert commands[2].startswith("python -m pipeline.tasks.body_mesh")
    assert "<code>data/mini/checkpoints/croco</code>" in behind
    for section in ("import_weights.random:", "pretrain.croco:", "pretrain.croco_body_from_croco:", "body_mesh:"):
        assert section in behind


def test_every_row_of_the_headline_has_a_colour_of_its_own(measured, write_metrics, monkeypatch):
    write_metrics("croco", 0, 110.0)
    colours = {}
    draw = figures.seeds_beside_paper

    def note(filled, columns, names):
        runs = {filled.cells[row.id, column].run for row in filled.table.rows for column in columns}
        colours.update({run: figures.colour(run, names) for run in runs if run})
        return draw(filled, columns, names)

    monkeypatch.setattr(figures, "seeds_beside_paper", note)
    report(measured)
    assert colours.keys() >= {"random", "croco", "mae_body", "croco_body"}
    assert len(set(colours.values())) == len(colours)


def test_every_number_has_the_hardware_that_measured_it(measured, write_metrics):
    write_metrics("random", 1, 100.0, hardware=None)
    text = (report(measured) / "index.html").read_text()
    assert "a processor, AVX2 (8 runs), not noted (1 run)</dd>" in text
    assert text.count('<small class="muted">a processor, AVX2</small>') == 8


def test_the_same_inputs_give_the_same_bytes(measured):
    folder = report(measured)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(before) > 45
    report(measured)
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before == after


def test_no_folder_of_this_machine_stands_in_the_report(measured):
    folder = report(measured)
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".csv", ".md", ".tex", ".svg"):
            assert str(measured.root) not in path.read_text(), path.name


def test_what_a_table_of_ours_differs_in_is_said_below_it(layout):
    text = (report(layout) / "index.html").read_text()
    tables = yaml.safe_load((layout.root / "reports/rows.yaml").read_text())["tables"]
    remarks = [table["remark"] for table in tables.values() if "remark" in table]
    assert tables["fig3a"]["remark"] in remarks, "the headline's"
    for remark in remarks:
        assert text.count(f"<b>On ours.</b> {escape(remark)}</p>") == remarks.count(remark), remark


def test_no_claim_is_read_without_what_ours_differs_in(layout, write_metrics):
    for run, error in (("croco_body", 104.0), ("croco_body_view", 118.0), ("croco_body_uniform", 118.0)):
        for seed in range(3):
            write_metrics(run, seed, error + seed)
    folder = report(layout)
    tables = yaml.safe_load((layout.root / "reports/rows.yaml").read_text())["tables"]
    text = (folder / "index.html").read_text()
    of_claims = text[text.index('id="claims"') : text.index('id="tables"')]
    for table, ids in (("t1a", "c24, c25"), ("t1d", "c39, c40")):
        said = f"<b>On ours, {ids}.</b> {escape(tables[table]['remark'])}</td>"
        assert of_claims.count(said) == 1
        assert of_claims.index(f">{ids[-3:]}</small>") < of_claims.index(said)
    with (folder / "claims.csv").open(newline="") as lines:
        remarks = {row["id"]: row["remark"] for row in csv.DictReader(lines)}
    assert remarks["c24"] == remarks["c28"] == tables["t1a"]["remark"] and remarks["c60"] == ""


def test_without_any_inputs_the_report_still_says_what_is_missing(layout):
    text = (report(layout) / "index.html").read_text()
    assert "no metrics in reports/metrics/mini/body_mesh for croco_body yet" in text
    assert "no such pairs manifest" in text
    assert "No pre-training has left a loss history" in text


def test_a_failed_report_leaves_the_old_one_whole(measured, write_metrics, capsys):
    folder = report(measured)
    before = (folder / "index.html").read_bytes()
    write_metrics("random", 1, 1.0, scale="gpu")
    assert main(["--params", PARAMS, "--root", str(measured.root)]) == 1
    assert "random/1.json: key scale is 'gpu'" in capsys.readouterr().err
    assert (folder / "index.html").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir() if path.name.startswith(".")) == []


def test_reports_of_other_scales_stay(measured):
    other = measured.report / "gpu" / "index.html"
    other.parent.mkdir(parents=True)
    other.write_text("another scale")
    report(measured)
    assert other.read_text() == "another scale"


def test_a_report_that_can_not_be_put_in_its_place_leaves_those_of_other_scales(measured, monkeypatch):
    other = report(measured) / "gpu" / "index.html"
    other.parent.mkdir(parents=True)
    other.write_text("another scale")
    (measured.report / ".gitignore").touch()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.reporting.__main__.shutil.copy2", full)
    assert main(["--params", PARAMS, "--root", str(measured.root)]) == 1
    assert other.read_text() == "another scale"


@pytest.fixture
def with_pairs(measured):
    """Twelve crops whose person is the lower half, and pairs of both kinds between them."""
    ids = [frame_id("aist", "train", "s", "c", number, "p") for number in range(12)]
    silhouette = np.zeros((80, 80), bool)
    silhouette[40:] = True
    crops = [
        Crop(frame_id=id, jpeg=encode_jpeg(np.full((80, 80, 3), 20 * number, np.uint8)), square=Square(40, 40, 80),
             silhouette=pack(silhouette), silhouette_source="pgn")
        for number, id in enumerate(ids)
    ]  # fmt: skip
    write_crops(measured.crops("body", "aist"), crops, 80)
    mask = pack(patch_mask(silhouette[8:72, 8:72], 8))
    rows = [
        {"pair_id": f"{row:016x}", "kind": kind, "dataset": "aist",
         "target_frame_id": ids[row], "reference_frame_id": ids[row + 1], "target_crop": row, "reference_crop": row + 1,
         "target_patch_mask": mask, "reference_patch_mask": mask, "num_patches": 64,
         "dt_seconds": 0.5 if kind == "pose" else None, "baseline_degrees": 42.0 if kind == "view" else None}
        for row, kind in enumerate(["pose"] * 6 + ["view"] * 5)
    ]  # fmt: skip
    write_pairs(rows, measured.pairs("body", "aist"), CropStore(measured.crops("body", "aist")).frames)
    folder = measured.pictures("pretrain", "croco_body")
    folder.mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / f"completion_{number:02d}.png"), np.zeros((128, 256, 3), np.uint8))
    (folder / "captions.json").write_text('{"completion_00.png": "pair 4a1e"}')
    folder = measured.pictures("pretrain", "croco_keypoints_body")
    folder.mkdir(parents=True)
    for name in ("completion_00", "training_000000600", "keypoints_00", "keypoints_01"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((192, 768, 3), np.uint8))
    (folder / "captions.json").write_text('{"keypoints_00.png": "pair 77b2, its reference"}')
    for init in ("random", "croco_body"):
        folder = measured.pictures("body_mesh", f"{init}/0")
        folder.mkdir(parents=True)
        for name in ("f1", "f2"):
            cv2.imwrite(str(folder / f"{name}.png"), np.zeros((24, 72, 3), np.uint8))
        (folder / "captions.json").write_text('{"f1.png": "frame 1"}')
    return measured


def test_pairs_silhouettes_and_completions_are_shown_with_what_is_known_about_them(with_pairs):
    folder = report(with_pairs)
    text = (folder / "index.html").read_text()
    for shown in (
        "cross-pose: +0.50 s apart",
        "cross-view: 42° apart",
        "aist: from pgn, 50% of the crop",
        "croco_body: pair 4a1e",
        "croco_keypoints_body: pair 77b2, its reference",
        "keypoints_body: no pictures in data/mini/pictures/pretrain/keypoints_body yet; `make tables` draws them",
    ):
        assert shown in text
    folded = text.index("more, of the further runs")
    assert text.index("croco_body: pair 4a1e") < folded < text.index("croco_keypoints_body: pair 77b2")
    assert len(list((folder / "figures").glob("completions-*.jpg"))) == 4
    assert len(list((folder / "figures").glob("keypoints-*.jpg"))) == 2


def test_one_test_image_from_every_initialisation_stands_together(with_pairs):
    text = (report(with_pairs) / "index.html").read_text()
    captions = re.findall(r"<figcaption>(from [^<]*)</figcaption>", text)
    assert captions == [
        *("from random, seed 0: f2", "from croco_body, seed 0: f2"),
        *("from random, seed 0: frame 1", "from croco_body, seed 0: frame 1"),
    ]
    assert "from mae_body, seed 0: no pictures in data/mini/pictures/body_mesh/mae_body/0 yet" in text


def test_every_dataset_is_counted_with_what_was_left_out(with_pairs):
    record = {"file": "a.pkl", "reason": "no camera", "records": 30}
    listed = with_pairs.records("3dpw").with_name("3dpw.quarantine.json")
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps({"count": 2, "records": 60, "entries": [record, record]}))
    counts = {item.name: item for item in data_counts.count(with_pairs, load(PARAMS))}
    assert list(counts) == list(load(PARAMS).datasets)
    assert (counts["aist"].crops, counts["aist"].pairs) == (12, {"view": 5, "pose": 6})
    assert (counts["3dpw"].left_out, counts["3dpw"].reasons) == (60, ("60: no camera",))
    assert (counts["humbi"].records, counts["humbi"].source) == (None, "not made yet")
    with_pairs.standin("humbi").mkdir(parents=True)
    assert {item.name: item.source for item in data_counts.count(with_pairs, load(PARAMS))}["humbi"] == "missing"


def test_a_dataset_that_is_not_there_is_said_to_be_left_out(measured, params):
    for name in params.datasets:
        measured.standin(name).mkdir(parents=True)
        if name != "humbi":  # its folder is empty, as at a scale without stand-ins
            (measured.standin(name) / "STANDIN.md").write_text("rendered")
    # What only the further tables need is not there either, but nothing lacks it.
    shutil.rmtree(measured.standin("interhand"))
    text = (report(measured) / "index.html").read_text()
    assert re.findall(r"left out: (\S+), not present", text) == ["humbi", "humbi"]
    assert "not made yet" in text
    first = text[text.index('id="headline"') : text.index('id="data"')]
    assert "left out: humbi, not present (pre-training)" in first


def test_the_patch_grid_marks_the_person_and_darkens_the_rest(with_pairs):
    folder = report(with_pairs)
    picture = cv2.imread(str(folder / "figures" / "pairs-03.jpg"))[..., ::-1].astype(int)
    target, reference = picture[:, :240], picture[:, -240:]
    assert abs(int(reference[20, 120, 0]) - int(reference[220, 120, 0])) <= 3  # the reference stays as it is
    assert target[15, 105, 0] < 0.7 * target[225, 105, 0]  # patch centres: background above, person below
    assert target[120:, :, 0].max() > 200 > target[:110, :, 0].max()  # orange lines only on the person
