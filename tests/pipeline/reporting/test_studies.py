"""Figures 3(b) and 4: which metrics make which point, and that page and files show them."""

from __future__ import annotations

import csv
import json

from pipeline.reporting import metric_table
from pipeline.reporting.__main__ import main
from pipeline.reporting.studies import studies


def few(layout, write_metrics, init: str, share: float, error: float) -> None:
    for seed in range(3):
        path = write_metrics(init, seed, error + seed)
        content = json.loads(path.read_text()) | {"stage": "body_mesh_labels", "labels": share}
        moved = layout.metrics("body_mesh_labels", f"{init}/{share:g}/{seed}")
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.write_text(json.dumps(content))
        path.unlink()


def test_a_part_of_the_labels_is_a_point_left_of_all_of_them(layout, params, write_metrics):
    few(layout, write_metrics, "croco_body", 0.25, 120.0)
    few(layout, write_metrics, "croco_body", 0.1, 130.0)
    for seed in range(3):
        write_metrics("croco_body", seed, 104.0 + seed)
    (study,) = studies(metric_table.read(layout), params)
    assert study.id == "fig3b"
    assert list(study.curves) == ["croco_body"]
    assert [(point.x, point.values["pa_mpjpe"].mean) for point in study.curves["croco_body"]] == [
        (0.1, 131.0),
        (0.25, 121.0),
        (1.0, 105.0),
    ]
    assert {file.labels for file in study.at("croco_body", 0.1).files} == {0.1}


def test_weights_on_the_way_are_points_between_the_start_and_the_end(measured, params, write_metrics):
    for step, error in zip(params.figure_4.steps, (132.0, 126.0, 118.0), strict=True):
        for seed in range(3):
            write_metrics(f"croco_body@{step}", seed, error + seed)
    (study,) = studies(metric_table.read(measured), params)
    assert study.id == "fig4"
    means = {point.x: point.values["pa_mpjpe"].mean for point in study.curves["croco_body"]}
    end = params.pretrain["croco_body"].steps
    assert means == {0: 140.0} | dict(zip(params.figure_4.steps, (133.0, 127.0, 119.0), strict=True)) | {end: 104.0}
    assert [point.x for point in study.curves["mae_body"]] == [end]


def test_the_ends_alone_are_no_figure(measured, params):
    assert studies(metric_table.read(measured), params) == []


def test_a_point_on_the_way_of_an_earlier_training_is_out_of_date(measured, params, write_metrics):
    step = params.figure_4.steps[0]
    for seed in range(3):
        write_metrics(f"croco_body@{step}", seed, 130.0, init_sha256="a" * 64)

    def stale(now: str) -> str | None:
        path = measured.metrics("pretrain", "croco_body")
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"heldout_loss": {"value": 0.5, "unit": "squared error", "n": 60}}
        facts = {"stage": "pretrain", "scale": measured.scale, "run": "croco_body", "seed": 0, "values": values}
        checkpoint = {"path": "data/mini/checkpoints/croco_body", "sha256": "c" * 64}
        path.write_text(json.dumps(facts | {"checkpoint": checkpoint, "snapshots": {str(step): now}}))
        (study,) = studies(metric_table.read(measured), params)
        return study.at("croco_body", step).stale

    assert stale("a" * 64) is None
    assert stale("b" * 64) == "croco_body was trained again since"


def test_page_and_files_show_a_study(measured, params, write_metrics):
    few(measured, write_metrics, "croco_body", 0.1, 130.0)
    (measured.root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    for seed in range(3):
        write_metrics("croco_body", seed, 104.0 + seed)
    assert main(["--params", str(measured.root / "params.yaml"), "--root", str(measured.root)]) == 0
    page = (measured.report / "index.html").read_text()
    assert "Figure 3(b): data efficiency of fine-tuning" in page
    assert "131.0 ± 2.5" in page
    assert (measured.report / "figures" / "fig3b.svg").read_text().startswith("<svg")
    with (measured.report / "tables" / "fig3b.csv").open(newline="") as content:
        rows = list(csv.DictReader(content))
    of_few = next(row for row in rows if row["run"] == "croco_body" and row["x"] == "0.1" and row["metric"] == "mpvpe")
    assert float(of_few["mean_mm"]) == 262.0
    assert of_few["files"].split()[0] == "reports/metrics/mini/body_mesh_labels/croco_body/0.1/0.json"
