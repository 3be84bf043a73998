"""A number measured with other parameters than params.yaml has now is marked wherever it is shown."""

from __future__ import annotations

import csv
import json
import re

import pytest

from pipeline.layout import PROJECT
from pipeline.reporting import claims, metric_table, paper, table_files, tables
from pipeline.reporting.__main__ import main
from pipeline.reporting.repeats import repeats
from pipeline.reporting.studies import studies
from pipeline.run_spec import pretrain_fingerprint


@pytest.fixture
def pretrained(layout, params):
    """Write the metrics file of a pre-training."""

    def write(run, sha256="c" * 64, fingerprint=None):
        path = layout.metrics("pretrain", run)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "stage": "pretrain",
            "scale": layout.scale,
            "run": run,
            "seed": 0,
            "values": {"heldout_loss": {"value": 0.5, "unit": "squared error", "n": 60}},
            "checkpoint": {"path": f"data/mini/checkpoints/{run}", "sha256": sha256},
            "params_fingerprint": fingerprint or pretrain_fingerprint(run, params),
        }
        path.write_text(json.dumps(content))

    return write


@pytest.fixture
def stale(layout, params):
    """Why the body cells of our CroCo are out of date, once all is written."""

    def look(run_params=params):
        reference = paper.load(layout.root / "reports")
        filled = tables.build(reference, metric_table.read(layout), run_params, layout)
        return filled["fig3a"].cells["croco_human", "body_pa_mpjpe"].stale

    return look


def test_what_params_ask_for_is_not_marked(measured, pretrained, stale, write_metrics):
    pretrained("croco_body")
    write_metrics("croco_body", 0, 104.0, init_sha256="c" * 64)
    assert stale() is None


def test_other_parameters_of_fine_tuning_are_seen(measured, params, stale):
    body_mesh = params.body_mesh.model_copy(update={"dropout": 0.5})
    other = params.model_copy(update={"body_mesh": body_mesh})
    assert stale(other) == "measured with other parameters than params.yaml has now"


def test_one_more_seed_makes_no_number_stale(measured, params, stale):
    body_mesh = params.body_mesh.model_copy(update={"seeds": (0, 1, 2, 3)})
    assert stale(params.model_copy(update={"body_mesh": body_mesh})) is None


def test_other_parameters_of_pre_training_are_seen_in_what_was_fine_tuned_from_it(measured, params, pretrained, stale):
    pretrained("croco_body")
    runs = {**params.pretrain, "croco_body": params.pretrain["croco_body"].model_copy(update={"mask_ratio": 0.9})}
    other = params.model_copy(update={"pretrain": runs})
    assert stale(other) == "croco_body: measured with other parameters than params.yaml has now"


def test_a_checkpoint_trained_again_is_seen(measured, pretrained, stale, write_metrics):
    pretrained("croco_body", sha256="d" * 64)
    write_metrics("croco_body", 0, 104.0, init_sha256="c" * 64)
    assert stale() == "croco_body was trained again since"


def test_a_group_is_out_of_date_with_one_of_its_pretrainings_and_so_are_its_comparisons(
    measured, params, write_metrics
):
    for run in ("croco_body_seed_1", "croco_body_uniform", "croco_body_uniform_seed_1"):
        write_metrics(run, 0, 105.0)

    def look():
        found = repeats(metric_table.read(measured), params)
        groups = {group.name: group.stale for group in found.groups}
        pairs = {(two.one, two.other): two.stale for two in found.comparisons}
        reference = paper.load(measured.root / "reports")
        filled = tables.build(reference, metric_table.read(measured), params, measured, found)
        judged = {item.id: item.stale for item in claims.judge(reference.claims, filled, [])}
        return groups, pairs["croco_body", "random"], pairs["croco_body", "croco_body_uniform"], judged["c39"]

    assert look() == ({"croco_body": None, "croco_body_uniform": None}, None, None, None)
    write_metrics("croco_body_uniform_seed_1", 0, 105.0, params_fingerprint="of another time")
    why = "measured with other parameters than params.yaml has now"
    assert look() == ({"croco_body": None, "croco_body_uniform": why}, None, why, why)
    write_metrics("random", 1, 140.0, params_fingerprint="of another time")
    assert look()[1] == why
    assert main(["--params", str(PROJECT / "params.yaml"), "--root", str(measured.root)]) == 0
    page = (measured.report / "index.html").read_text().replace("<wbr>", "")
    (told,) = re.findall(r"croco_body <small>against</small> random(.*?)</th>", page)
    assert table_files.STALE in told


def change(path, **mean_pose):
    """What the mean pose errs, and on how many images, in a metrics file of body mesh recovery."""
    content = json.loads(path.read_text())
    content["values"]["pa_mpjpe_of_mean_pose"] |= mean_pose
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("mean_pose", [{"n": 35000}, {"value": 123.402}, {"value": 120.0}])
def test_what_was_measured_on_other_data_than_the_headline_is_out_of_date(measured, params, write_metrics, mean_pose):
    """As after 3DPW has come: `make repro` measures the headline again, and not the further tables."""
    paths = [write_metrics(run, 0, 105.0) for run in ("croco_body_seed_1", "croco_body_uniform", "croco_body@600")]
    few = measured.metrics("body_mesh_labels", "croco_body/0.1/0")
    few.parent.mkdir(parents=True)
    few.write_text(json.dumps(json.loads(paths[0].read_text()) | {
        "stage": "body_mesh_labels", "init": "croco_body", "labels": 0.1,
    }))  # fmt: skip
    change(few, value=124.4)  # The mean pose of fewer images.

    def look():
        metrics = metric_table.read(measured)
        found = repeats(metrics, params)
        filled = tables.build(paper.load(measured.root / "reports"), metrics, params, measured, found)
        (against_random,) = (two.stale for two in found.comparisons if two.other == "random")
        few_labels, on_the_way = studies(metrics, params)
        return [
            filled["t1d"].cells["mask_uniform", "body_pa_mpjpe"].stale,
            found.of("croco_body").stale,
            against_random,
            on_the_way.at("croco_body", 600).stale,
            few_labels.at("croco_body", 0.1).stale,
        ], filled["fig3a"].cells["croco_human", "body_pa_mpjpe"].stale

    for path in paths:
        change(path, value=123.400002)  # On another processor.
    assert look() == ([None] * 5, None)
    for init in params.finetune.body_mesh.headline:
        for seed in range(3):
            change(measured.metrics("body_mesh", f"{init}/{seed}"), **mean_pose)
    others, of_the_headline = look()
    assert of_the_headline is None
    why = "measured on other data"
    # Whether a part of the training images is of the same ones is seen by their number and from afar.
    assert others == [why] * 4 + [None if mean_pose == {"value": 123.402} else why]


def test_what_the_mean_pose_errs_is_told_of_the_images_of_the_headline(measured, write_metrics):
    change(write_metrics("croco", 0, 110.0), value=99.9, n=7)
    assert main(["--params", str(PROJECT / "params.yaml"), "--root", str(measured.root)]) == 0
    page = (measured.report / "index.html").read_text()
    assert "has a PA-MPJPE of 123.4 mm on the same 320 images" in page
    assert "or on other images than the headline" in page


def test_the_mark_stands_in_page_and_files(measured, write_metrics, layout):
    main_arguments = ["--params", str(PROJECT / "params.yaml"), "--root", str(layout.root)]
    assert main(main_arguments) == 0
    assert table_files.STALE not in (layout.report / "index.html").read_text()
    write_metrics("random", 1, 140.0, params_fingerprint="of another time")
    assert main(main_arguments) == 0
    page = (layout.report / "index.html").read_text()
    row = page[page.index('<th scope="row" class="row">Random') :]
    assert table_files.STALE in row[: row.index("</tr>")]
    for suffix in ("md", "tex"):
        (line,) = [
            line
            for line in (layout.report / f"tables/fig3a.{suffix}").read_text().splitlines()
            if "Random" in line and "140.0" in line
        ]
        assert table_files.STALE in line
    with (layout.report / "tables/fig3a.csv").open(newline="") as file:
        marked = {(cell["row"], bool(cell["stale"])) for cell in csv.DictReader(file) if cell["ours"]}
    assert marked == {("random", True), ("mae_human", False), ("croco_human", False)}
