"""Reading metrics files: everything in, or a message that names file and key."""

from __future__ import annotations

import re

import pytest

from pipeline.reporting import metric_table
from pipeline.reporting.metric_table import MetricsError


def test_every_value_becomes_a_row_that_names_its_file(measured):
    table = metric_table.read(measured)
    rows = list(table.measurements())
    assert len(rows) == 3 * 3 * 5
    assert {row.path.exists() for row in rows} == {True}
    assert [file.seed for file in table.of("body_mesh", "croco_body")] == [0, 1, 2]
    assert [file.seed for file in table.of("body_mesh", "croco_body", seeds=(2,))] == [2]


def test_a_scale_without_metrics_is_an_empty_table(layout):
    assert metric_table.read(layout).files == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"pa_mpjpe": {"value": "a", "unit": "mm", "n": 1}}}, "values.pa_mpjpe.value: Input should be"),
        ({"values": {"pa_mpjpe": {"value": 1.0, "n": 1}}}, "values.pa_mpjpe.unit: Field required"),
        ({"values": {"pa_mpjpe": {"value": float("nan"), "unit": "mm", "n": 1}}}, "values.pa_mpjpe.value"),
        ({"scale": "gpu"}, "key scale is 'gpu', but the file lies under 'mini'"),
        ({"stage": "hand_mesh"}, "key stage is 'hand_mesh', but the file lies under 'body_mesh'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_key(layout, write_metrics, change, message):
    path = write_metrics("random", 0, 100.0, **change)
    with pytest.raises(MetricsError, match=re.escape(message)) as caught:
        metric_table.read(layout)
    assert str(path) in str(caught.value)


def test_a_file_cut_short_is_named(layout, write_metrics):
    path = write_metrics("random", 0, 100.0)
    path.write_text(path.read_text()[:40])
    with pytest.raises(MetricsError, match="not valid JSON"):
        metric_table.read(layout)


def test_two_files_about_the_same_run_are_refused(layout, write_metrics):
    path = write_metrics("random", 0, 100.0)
    path.with_name("copy.json").write_text(path.read_text())
    with pytest.raises(MetricsError, match="measures the same as"):
        metric_table.read(layout)


@pytest.mark.parametrize(
    ("content", "where"),
    [("", "1: expected columns step and loss"), ("step,lr\n0,1\n", "1: expected columns"),
     ("step,loss\n0,1.0\n10\n", "3: not a line of numbers"), ("step,loss\n0,1.0\n10,b\n", "3: not a line of")],
)  # fmt: skip
def test_a_damaged_history_names_its_line(tmp_path, content, where):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(MetricsError, match=r"a\.csv:" + where):
        metric_table.read_history(path)
