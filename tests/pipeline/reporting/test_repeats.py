"""Pre-trainings that differ in their seed alone: found by what they are, told apart from what luck does."""

from __future__ import annotations

import csv
import json

import pytest

from pipeline.reporting import metric_table
from pipeline.reporting.__main__ import main
from pipeline.reporting.repeats import repeats


@pytest.fixture
def repeated(measured, write_metrics):
    """croco_body (104 mm in `measured`) and mae_body (118) with two more seeds each."""
    for run, means in (("croco_body", (103.0, 105.0)), ("mae_body", (117.0, 122.0))):
        for number, mean in enumerate(means, 1):
            for seed in range(3):
                write_metrics(f"{run}_seed_{number}", seed, mean + 0.5 * (seed - 1))
    return measured


def test_runs_alike_but_for_their_seed_are_one_group(repeated, params):
    found = repeats(metric_table.read(repeated), params)
    assert [[repeat.run for repeat in group.repeats] for group in found.groups] == [
        ["croco_body", "croco_body_seed_1", "croco_body_seed_2"],
        ["mae_body", "mae_body_seed_1", "mae_body_seed_2"],
    ]
    assert [repeat.seed for repeat in found.groups[0].repeats] == [0, 1, 2]


def test_what_starts_from_another_seed_of_the_same_run_is_in_the_group(repeated, params, write_metrics):
    runs = ("croco_body_from_croco", "croco_body_from_croco_seed_1", "croco_body_from_croco_seed_3")
    assert [params.pretrain[run].init for run in runs] == ["croco", "croco_seed_1", "croco_seed_3"]
    for run in (*runs, "croco_hand_from_croco"):
        write_metrics(run, 0, 105.0)
    assert runs in {
        tuple(repeat.run for repeat in group.repeats) for group in repeats(metric_table.read(repeated), params).groups
    }


def test_those_that_start_from_one_pretraining_count_as_one(repeated, params, write_metrics):
    of_croco, of_others = ("", "_seed_1", "_seed_2"), ("_seed_3", "_seed_4")
    for name, mean in zip((*of_croco, *of_others), (100.0, 101.0, 102.0, 103.0, 108.0), strict=True):
        write_metrics(f"croco_body_from_croco{name}", 0, mean)
    of_one = {f"croco_body_from_croco{name}": {"init": "croco"} for name in of_croco}
    runs = {run: spec.model_copy(update=of_one.get(run)) for run, spec in params.pretrain.items()}
    group = repeats(metric_table.read(repeated), params.model_copy(update={"pretrain": runs})).of(
        "croco_body_from_croco"
    )
    interval = group.values["pa_mpjpe"]
    # 101, 103, 108
    assert (interval.mean, interval.num, len(group.repeats)) == (104.0, 3, 5)
    assert interval.half_width == pytest.approx(4.30265 * 13**0.5 / 3**0.5, rel=1e-5)


def test_those_that_all_start_from_one_pretraining_decide_nothing(repeated, params, write_metrics):
    names = [f"croco_body_from_croco{name}" for name in ("", "_seed_1", "_seed_2")]
    for name in names:
        for seed in range(3):
            write_metrics(name, seed, 50.0 + seed)
    runs = {run: spec.model_copy(update={"init": "croco"} if run in names else None)
            for run, spec in params.pretrain.items()}  # fmt: skip
    found = repeats(metric_table.read(repeated), params.model_copy(update={"pretrain": runs}))
    for other in ("croco_body", "random"):
        two = found.between(names[0], other)
        assert (two.apart["pa_mpjpe"].half_width, two.better("pa_mpjpe")) == (None, None)


def test_the_interval_of_a_group_is_over_pretrainings_each_the_mean_of_its_finetunings(repeated, params):
    croco, _ = repeats(metric_table.read(repeated), params).groups
    interval = croco.values["pa_mpjpe"]
    # 104, 103, 105: Student's t of two degrees of freedom times 1 / sqrt(3).
    assert (interval.mean, interval.num) == (104.0, 3)
    assert interval.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    # Of pre-trainings 1; of fine-tunings the root of the mean of 1.5, .5 and .5 squared.
    assert croco.spread("pa_mpjpe") == pytest.approx((1.0, (2.75 / 3) ** 0.5))


def test_groups_are_compared_with_each_other_and_with_no_pretraining(repeated, params):
    comparisons = repeats(metric_table.read(repeated), params).comparisons
    found = {(two.one, two.other): (two.apart["pa_mpjpe"], two.better("pa_mpjpe")) for two in comparisons}
    # Seeds do to mae_body what they do to croco_body: scipy.stats.ttest_ind of (118, 117, 122) and (104, 103, 105),
    # equal_var=False. With each seed random weights lose 2/3 mm more: variances 1/3 of pre-trainings (two degrees of
    # freedom) and 4/27 of seeds (two) less 1/27 (four), of 2.95 degrees together.
    interval, better = found["croco_body", "mae_body"]
    assert (interval.mean, interval.half_width, better) == (-15.0, pytest.approx(5.7, abs=0.05), "croco_body")
    interval, better = found["croco_body", "random"]
    assert (interval.mean, interval.half_width, better) == (-36.0, pytest.approx(2.14, abs=0.005), "croco_body")
    assert found["mae_body", "random"][1] == "mae_body"
    assert len(found) == 3


def test_runs_of_the_study_are_compared_with_each_other_alone(repeated, params, write_metrics):
    for run, mean in (("study_uniform", 110.0), ("study_mae", 112.0)):
        for name in (run, f"{run}_seed_1"):
            for seed in range(3):
                write_metrics(name, seed, mean + 0.1 * seed)
    found = repeats(metric_table.read(repeated), params)
    assert {group.name for group in found.groups} == {"croco_body", "mae_body", "study_uniform", "study_mae"}
    names = {frozenset((two.one, two.other)) for two in found.comparisons}
    assert {"study_uniform", "study_mae"} in names and {"study_mae", "random"} in names
    assert not any("croco_body" in two and "study_mae" in two for two in names)
    assert len(found.comparisons) == len(names) == 6


def test_the_page_compares_those_runs_of_the_study_that_learn_from_the_same(repeated, params, write_metrics):
    for run in ("study_uniform", "study_mae_half", "study_near", "study_near_mae"):
        for name in (run, f"{run}_seed_1"):
            for seed in range(3):
                write_metrics(name, seed, 110.0 + 0.1 * seed)
    found = repeats(metric_table.read(repeated), params)
    everything, shown = ({(two.one, two.other) for two in some} for some in (found.comparisons, found.shown))
    assert ("study_uniform", "study_near_mae") in everything
    of_the_study = {two for two in shown if {*two} <= {*params.study}}
    assert of_the_study == {("study_uniform", "study_mae_half"), ("study_near", "study_near_mae")}


def test_the_page_leaves_to_tables_and_claims_what_the_paper_compares(repeated, params, write_metrics):
    for name in ("croco_body_uniform", "croco_body_uniform_seed_1"):
        for seed in range(3):
            write_metrics(name, seed, 105.0 + 0.1 * seed)
    found = repeats(metric_table.read(repeated), params)
    of_masks = ("croco_body", "croco_body_uniform")
    everything, shown = ({(two.one, two.other) for two in some} for some in (found.comparisons, found.shown))
    assert of_masks in everything and of_masks not in shown
    assert {("croco_body", "mae_body"), ("croco_body_uniform", "random")} <= shown < everything


def test_what_luck_may_have_done_is_not_decided(repeated, params, write_metrics):
    for seed in range(3):
        write_metrics("croco_body_seed_2", seed, 125.0)
    comparisons = repeats(metric_table.read(repeated), params).comparisons
    (two,) = [two for two in comparisons if (two.one, two.other) == ("croco_body", "mae_body")]
    assert two.apart["pa_mpjpe"].mean < 0
    assert two.better("pa_mpjpe") is None


def test_one_pretraining_of_each_is_nothing_to_compare(measured, params):
    assert repeats(metric_table.read(measured), params) is None


def test_page_and_file_show_them(repeated, params):
    assert main(["--root", str(repeated.root)]) == 0
    html = (repeated.report / "index.html").read_text().replace("<wbr>", "")
    assert 'id="seeds"' in html and "croco_body_seed_2" in html
    assert "<td><b>104.0 ± 2.5</b></td>" in html and "<td>1.0, 1.0</td>" in html
    assert '<span title="croco_body_seed_2">105.0</span>' in html
    assert "croco_body <small>against</small> mae_body</th><td>\N{MINUS SIGN}15.0 ± 5.7</td><td>croco_body</td>" in html
    assert "over 3 pre-trainings</small>" in html and "over 3 pre-trainings and one draw of random weights" in html
    assert "its side of the difference is the 4 fine-tunings of one draw of random weights" in html
    assert "Of the 1 claims judged over pre-trainings, up to about 0.1 would be decided by luck" in html
    assert "look decided by the interval over pre-trainings, and about as many by the paired one" in html
    with (repeated.report / "tables" / "pretraining_seeds.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    (whole,) = [row for row in rows if (row["of"], row["run"], row["metric"]) == ("croco_body", "all", "pa_mpjpe")]
    assert (whole["mean_mm"], whole["num"]) == ("104.000", "3")
    files = [json.loads((repeated.root / name).read_text()) for name in whole["files"].split()]
    assert {file["init"] for file in files} == {"croco_body", "croco_body_seed_1", "croco_body_seed_2"}
    (apart,) = [row for row in rows if (row["of"], row["metric"]) == ("croco_body minus random", "pa_mpjpe")]
    assert apart["mean_mm"] == "-36.000"
    assert {json.loads((repeated.root / name).read_text())["init"] for name in apart["files"].split()} == {
        "croco_body",
        "croco_body_seed_1",
        "croco_body_seed_2",
        "random",
    }
