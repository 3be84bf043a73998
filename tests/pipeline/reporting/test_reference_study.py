"""The study of the reference: which runs make which curve, what the sentences say, and that page and files show it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping

import pytest

from pipeline.layout import Layout
from pipeline.reporting import figures, metric_table
from pipeline.reporting.__main__ import main
from pipeline.reporting.reference_study import ReferenceStudy, reference_study
from pipeline.reporting.repeats import repeats
from pipeline.run_spec import Params, pretrain_fingerprint

ERROR = 0.002
RECORDINGS = 11
HALF_WIDTH = 0.0044563
"""Of the 95 % interval with that error: 2.228139 times it."""


def measure(
    layout: Layout, params: Params, run: str, saved: Mapping[tuple[str, str], float], **changes: object
) -> None:
    """Metrics of one pre-training; `saved` maps kind and what stands in to the saving, on the person and at large."""
    path = layout.metrics("pretrain", run)
    path.parent.mkdir(parents=True, exist_ok=True)
    savings = [
        {
            "kind": kind,
            "patches": patches,
            "against": against,
            "loss": 0.7,
            "saves": value if patches == "person" else 10 * value,
            "standard_error": ERROR,
            "pairs": 200,
            "recordings": RECORDINGS,
        }
        for (kind, against), value in saved.items()
        for patches in ("hidden", "person")
    ]
    facts = {
        "stage": "pretrain",
        "scale": layout.scale,
        "run": run,
        "seed": 0,
        "values": {"heldout_loss": {"value": 0.5, "unit": "squared error", "n": 512}},
        "reference_saves": savings,
        "params_fingerprint": pretrain_fingerprint(run, params),
    }
    path.write_text(json.dumps(facts | changes))


def found(layout: Layout, params: Params) -> ReferenceStudy:
    metrics = metric_table.read(layout)
    study = reference_study(metrics, params, repeats(metrics, params))
    assert study is not None
    return study


def test_a_run_that_changes_one_thing_is_a_place_beside_the_usual_one(layout: Layout, params: Params) -> None:
    for run, value in (("study_mask_95", 0.03), ("study", 0.01), ("study_mask_90", 0.02)):
        measure(layout, params, run, {("view", "other"): value})
    (factor,) = found(layout, params).factors
    assert (factor.key, factor.title, factor.labels) == ("mask_ratio", "Mask ratio", ("0.75", "0.9", "0.95"))
    assert list(factor.curves) == [""]
    places = factor.curves[""]
    assert [place.run for place in places] == ["study", "study_mask_90", "study_mask_95"]
    saving = places[1].savings["view", "person", "other"]
    assert (saving.mean, saving.half_width) == (0.02, pytest.approx(HALF_WIDTH, rel=1e-4))
    assert places[1].savings["view", "hidden", "other"].mean == 0.2


def test_runs_that_share_a_second_change_are_a_curve_of_their_own(layout: Layout, params: Params) -> None:
    for run in ("study", "study_mask_90", "study_uniform", "study_uniform_90"):
        measure(layout, params, run, {("view", "other"): 0.01})
    factors = {factor.key: factor for factor in found(layout, params).factors}
    assert {key: list(factor.curves) for key, factor in factors.items()} == {
        "mask_ratio": ["", "masking: uniform"],
        "masking": [""],
    }
    measure(layout, params, "study_uniform_95", {("view", "other"): 0.01})
    measure(layout, params, "study_mask_95", {("view", "other"): 0.01})
    factors = {factor.key: factor for factor in found(layout, params).factors}
    assert [place.run for place in factors["mask_ratio"].curves["masking: uniform"]] == [
        "study_uniform",
        "study_uniform_90",
        "study_uniform_95",
    ]
    assert [place.run for place in factors["masking"].curves[""]] == ["study", "study_uniform"]


def test_a_run_that_changes_much_begins_a_part_of_the_study(layout: Layout, params: Params) -> None:
    for run in ("study", "study_uniform", "study_near", "study_near_gap_15", "study_near_view_baseline_0"):
        measure(layout, params, run, {("view", "other"): 0.01})
    measure(layout, params, "study_near_view", {("view", "other"): 0.01})
    around, near = found(layout, params).parts
    assert (around.usual.run, around.changes) == ("study", ())
    assert [factor.id for factor in around.factors] == ["study-masking"]
    assert near.usual.run == "study_near"
    assert set(near.changes) == {"masking: uniform", "kinds: pose", "gap_s: 0 to 0.5", "crops: shared", "heldout: 0.4"}
    curves = {factor.id: factor.curves for factor in near.factors}
    assert {
        name: {by: [place.run for place in runs] for by, runs in lines.items()} for name, lines in curves.items()
    } == {
        "study_near-gap_s": {"": ["study_near", "study_near_gap_15"]},
        "study_near-kinds": {"": ["study_near", "study_near_view"]},
        "study_near-baseline_degrees": {"kinds: view": ["study_near_view_baseline_0", "study_near_view"]},
    }


def test_runs_with_a_reference_that_gives_something_of_its_own_are_named(layout: Layout, params: Params) -> None:
    for run, same in (("study", 0.001), ("study_near", 0.01), ("study_mask_90", 0.02), ("study_mask_95", -0.02)):
        measure(layout, params, run, {("pose", "other"): 0.05, ("pose", "same"): same})
    assert found(layout, params).findings == (
        "In cross-pose pairs the true reference instead of another recording's saves most in study: 0.0500 ± 0.0045.",
        "In cross-pose pairs the reference is seen to give something of its own, beyond what another image of the same "
        "recording gives, in 2 of 4 runs: study_mask_90 (0.0200 ± 0.0045), study_near (0.0100 ± 0.0045). If it gave "
        "nothing in any, about 0.1 would look so by luck.",
    )
    measure(layout, params, "study_near", {("pose", "other"): 0.05, ("pose", "same"): 0.001})
    measure(layout, params, "study_mask_90", {("pose", "other"): 0.05})
    _, sentence = found(layout, params).findings
    assert "in 0 of 3 runs. If" in sentence


def test_the_run_in_which_the_reference_saves_most_stands_beside_the_first(layout: Layout, params: Params) -> None:
    for run, saved in (("study", -0.01), ("study_mask_90", 0.02), ("study_near", 0.3)):
        measure(layout, params, run, {("view", "other"): saved} if run != "study_near" else {("pose", "other"): saved})
    # Of cross-pose pairs the first run has none to stand beside.
    assert found(layout, params).findings == (
        "In cross-view pairs the true reference instead of another recording's saves most in study_mask_90: "
        "0.0200 ± 0.0045, where study has \N{MINUS SIGN}0.0100 ± 0.0045.",
    )


def test_runs_of_a_part_are_called_by_what_they_change_in_the_order_of_the_curves(
    layout: Layout, params: Params
) -> None:
    for run in ("study_uniform_90", "study_mask_95", "study", "study_uniform", "study_network", "study_decoder_deep"):
        if run in params.study:
            measure(layout, params, run, {("view", "other"): 0.01})
    (part,) = found(layout, params).parts
    assert [(place.run, place.label) for place in part.runs] == [
        ("study", "as usual"),
        ("study_mask_95", "Mask ratio: 0.95"),
        ("study_uniform", "Masking: uniform"),
        ("study_uniform_90", "Masking: uniform, Mask ratio: 0.9"),
        ("study_decoder_deep", "Network: deep decoder"),
    ]
    assert (part.kinds, part.fine_tuned) == (("view",), False)


def test_what_lies_apart_from_the_usual_run_is_filled(layout: Layout, params: Params) -> None:
    savings = {"study": (0.01, 0.0), "study_mask_90": (0.012, 0.001), "study_mask_95": (0.03, 0.02)}
    for run, (other, same) in savings.items():
        measure(layout, params, run, {("view", "other"): other, ("view", "same"): same})
    svg = figures.runs_of(found(layout, params).parts[0])
    marks = re.findall(r'<use [^>]*style="(fill-opacity: 0|fill: #\w+); stroke: (#\w+)"', svg)
    other, same = ([fill != "fill-opacity: 0" for fill, stroke in marks if stroke == of] for of in figures.COLOURS[:2])
    in_legend = [False]
    assert other == [False, False, True, *in_legend]
    assert same == [False, False, True, *in_legend]


def test_places_are_in_order_and_called_by_what_they_change(layout: Layout, params: Params) -> None:
    for run in params.study:
        measure(layout, params, run, {("view", "other"): 0.01} if params.pretrain[run].method == "croco" else {})
    around, near, looks = found(layout, params).parts
    (factor,) = looks.factors
    assert (looks.usual.run, factor.title, factor.labels) == (
        "study_looks", "Data sets", ("synthetic", "synthetic, with other looks in every view"),
    )  # fmt: skip
    labels = {factor.key: factor.labels for factor in near.factors}
    assert labels["gap_s"] == ("0 to 0.5", "0.5 to 1.5", "1.5 to 4")
    assert labels["kinds"] == ("pose", "view, pose", "view")
    assert labels["crops"] == ("shared", "own")
    labels = {factor.key: factor.labels for factor in around.factors}
    assert labels["max_pairs"] == ("30", "100", "300", "all")
    assert labels["baseline_degrees"] == ("0 to 45", "45 to 90", "90 to 181", "all")
    assert labels["network"] == ("usual", "shallow decoder", "deep decoder", "wide decoder")
    assert labels["steps"] == ("300", "600", "1200", "2400")
    assert labels["kinds"] == ("view, pose", "view", "pose")
    assert labels["visible_length"] == ("count of a person's visible part", "count of a whole person")
    assert labels["crops"] == ("own", "shared")
    assert labels["batch"] == ("16", "32")
    assert "seed" not in labels
    places = {
        place.run for factor in found(layout, params).factors for places in factor.curves.values() for place in places
    }
    specs = params.pretrain
    assert places == {run for run in params.study if specs[run].method == "croco" and specs[run].seed == 0}


def test_savings_are_means_over_pretrainings_and_their_intervals_cover_both_kinds_of_luck(
    layout: Layout, params: Params
) -> None:
    measure(layout, params, "study", {("view", "other"): 0.045})
    for name in ("study_uniform", "study_near"):
        for seed, saved in enumerate((0.01, 0.03, 0.02)):
            run = f"{name}_seed_{seed}" if seed else name
            measure(layout, params, run, {("view", "other"): saved}, seed=seed)
    study = found(layout, params)
    usual, uniform = study.parts[0].runs
    assert [file.seed for file in uniform.files] == [0, 1, 2]
    saving = uniform.savings["view", "person", "other"]
    # Over three means with a deviation of .01: 4.302653 * .01 / sqrt(3).
    expected = (0.0248413777**2 + HALF_WIDTH**2) ** 0.5
    assert (saving.mean, saving.half_width) == (pytest.approx(0.02), pytest.approx(expected, rel=1e-4))
    assert study.of_one_pretraining == (usual,)
    # By the first pre-training alone they would lie apart.
    (sentence,) = study.factors[0].findings
    assert sentence.endswith("(0.0200 ± 0.0252), intervals that overlap (not over several pre-trainings).")
    measure(layout, params, "study_uniform_batch_32", {("view", "other"): 0.04})
    measure(layout, params, "study_uniform_batch_32_seed_1", {("view", "other"): 0.04}, seed=1)
    batch = next(factor for factor in found(layout, params).factors if factor.key == "batch")
    assert batch.findings[0].endswith("least at 16 (0.0200 ± 0.0252), intervals that overlap.")
    assert study.parts[1].findings == (
        "study_near, cross-view pairs, over 3 pre-trainings: the true reference instead of another recording's is not "
        "seen to change the loss over the person's hidden patches (0.0200 ± 0.0252 lower).",
    )
    measure(layout, params, "study_near_seed_2", {("view", "other"): 0.02}, params_fingerprint="0" * 16)
    assert found(layout, params).parts[1].usual.stale == "measured with other parameters than params.yaml has now"


def test_without_the_usual_run_or_anything_beside_it_there_is_no_study(layout: Layout, params: Params) -> None:
    measure(layout, params, "study_mask_90", {("view", "other"): 0.01})
    measure(layout, params, "study_mask_95", {("view", "other"): 0.01})
    assert reference_study(metric_table.read(layout), params) is None
    layout.metrics("pretrain", "study_mask_95").unlink()
    layout.metrics("pretrain", "study_mask_90").unlink()
    measure(layout, params, "study", {("view", "other"): 0.01})
    assert reference_study(metric_table.read(layout), params) is None


@pytest.mark.parametrize(
    ("other", "same", "says"),
    [
        (0.05, 0.001, "lowers the loss over the person's hidden patches by 0.0500 ± 0.0045. Instead of another image"),
        (
            0.05,
            0.001,
            "lower): it is seen to give what the images of a recording share, looks above all, and is not seen to give "
            "anything of its own (at most 0.0055).",
        ),
        (0.05, 0.01, "by 0.0100 ± 0.0045: that is its own, the rest what the images of a recording share."),
        (
            0.05,
            -0.01,
            "raises the loss over the person's hidden patches by 0.0100 ± 0.0045: it is seen to give what the images "
            "of a recording share, looks above all, and nothing of its own.",
        ),
        (-0.05, 0.001, "instead of another recording's raises the loss over the person's hidden patches by 0.0500"),
        (0.001, 0.001, "is not seen to change the loss over the person's hidden patches (0.0010 ± 0.0045 lower)"),
    ],
)
def test_the_first_sentence_follows_the_numbers(
    layout: Layout, params: Params, other: float, same: float, says: str
) -> None:
    measure(layout, params, "study", {("pose", "other"): other, ("pose", "same"): same})
    measure(layout, params, "study_mask_90", {("pose", "other"): other})
    (sentence,) = found(layout, params).parts[0].findings
    assert sentence.startswith("study, cross-pose pairs: ")
    assert says in sentence


@pytest.mark.parametrize(("least", "intervals"), [(0.01, "lie apart"), (0.049, "overlap")])
def test_a_factor_names_its_extremes_and_whether_they_differ(
    layout: Layout, params: Params, least: float, intervals: str
) -> None:
    measure(layout, params, "study", {("view", "other"): least})
    measure(layout, params, "study_mask_90", {("view", "other"): 0.05})
    measure(layout, params, "study_uniform", {("view", "other"): 0.03})
    measure(layout, params, "study_uniform_90", {("view", "other"): 0.04})
    factor = next(factor for factor in found(layout, params).factors if factor.key == "mask_ratio")
    assert factor.kinds == ("view",)
    assert factor.findings == (
        "Against another recording's, the reference saves in cross-view pairs most at 0.9 "
        f"(0.0500 ± 0.0045) and least at 0.75 ({least:.4f} ± 0.0045), intervals that {intervals} (not over several "
        "pre-trainings).",
        "With masking: uniform, against another recording's, the reference saves in cross-view pairs most at 0.9 "
        "(0.0400 ± 0.0045) and least at 0.75 (0.0300 ± 0.0045), intervals that lie apart (not over several "
        "pre-trainings).",
    )


def test_a_network_without_reference_stands_beside_the_ones_with_the_same_masks(layout: Layout, params: Params) -> None:
    losses = {"study": 0.5, "study_uniform": 0.65, "study_uniform_90": 0.9, "study_uniform_batch_32": 0.64}
    for run, loss in (losses | {"study_mae": 0.6}).items():
        values = {"heldout_loss_human": {"value": loss, "unit": "squared error", "n": 512}}
        saved = {} if run == "study_mae" else {("view", "other"): 0.01}
        measure(layout, params, run, saved, values=values)
    usual, batch = found(layout, params).without_a_reference
    assert (usual.without, usual.with_reference) == ("study_mae", "study_uniform")
    assert (usual.completed, usual.losses) == ((32, 16), (0.6, 0.65))
    assert (usual.tuned, usual.apart, usual.better, usual.stale) == ((None, None), None, None, None)
    assert (batch.with_reference, batch.completed) == ("study_uniform_batch_32", (32, 32))
    again = {"heldout_loss_human": {"value": 0.62, "unit": "squared error", "n": 512}}
    measure(layout, params, "study_mae_seed_2", {}, values=again, seed=2)
    assert found(layout, params).without_a_reference[0].losses == (pytest.approx(0.61), 0.65)


@pytest.mark.parametrize(
    ("reference", "apart", "better"),
    [
        ((110.0, 111.0, 112.1), "10.0 ± 0.1", "study_uniform"),
        ((130.0, 131.0, 132.1), "\N{MINUS SIGN}10.0 ± 0.1", "study_mae"),
        ((110.0, 121.0, 132.0), "0.0 ± 24.8", None),
    ],
)
def test_networks_with_and_without_reference_are_compared_after_fine_tuning(
    layout: Layout, params: Params, write_metrics, reference: tuple[float, ...], apart: str, better: str | None
) -> None:
    for run in ("study", "study_uniform", "study_mae"):
        values = {"heldout_loss_human": {"value": 0.5, "unit": "squared error", "n": 512}}
        measure(layout, params, run, {} if run == "study_mae" else {("view", "other"): 0.01}, values=values)
    for run, errors in (("study_mae", (120.0, 121.0, 122.0)), ("study_uniform", reference)):
        for seed, error in enumerate(errors):
            write_metrics(run, seed, error)
    (two,) = found(layout, params).without_a_reference
    assert two.tuned[0] is not None and two.apart is not None
    assert (two.tuned[0].pa_mpjpe.written(1), two.apart.written(1), two.better) == ("121.0 ± 2.5", apart, better)


def test_several_pretrainings_decide_between_networks_with_and_without_reference(
    layout: Layout, params: Params, write_metrics
) -> None:
    for run in ("study", "study_uniform", "study_mae"):
        values = {"heldout_loss_human": {"value": 0.5, "unit": "squared error", "n": 512}}
        measure(layout, params, run, {} if run == "study_mae" else {("view", "other"): 0.01}, values=values)
    # Of the first pre-trainings MAE is 1 mm ahead at every seed; another one of it is 4 mm worse.
    for run, mean in (("study_mae", 110.0), ("study_uniform", 111.0), ("study_uniform_seed_1", 111.2)):
        for seed in range(3):
            write_metrics(run, seed, mean + 0.1 * seed)
    alone = found(layout, params).without_a_reference[0]
    assert (alone.over_pretrainings, alone.better, alone.stale) == (None, "study_mae", None)
    measure(layout, params, "study_mae_seed_1", {}, params_fingerprint="0" * 16)
    for seed in range(3):
        write_metrics("study_mae_seed_1", seed, 114.0 + 0.1 * seed)
    decided = found(layout, params).without_a_reference[0]
    assert decided.apart == alone.apart
    (before, _), (after, _) = alone.tuned, decided.tuned
    assert before is not None and (before.pa_mpjpe.written(1), before.pretrainings) == ("110.1 ± 0.2", 1)
    assert after is not None and (after.pa_mpjpe.written(1), after.pretrainings) == ("112.1 ± 25.4", 2)
    assert decided.over_pretrainings is not None and decided.over_pretrainings.mean == pytest.approx(0.9)
    assert decided.better is None
    assert decided.stale == "study_mae_seed_1: measured with other parameters than params.yaml has now"


def test_fine_tuning_is_told_beside_what_the_reference_saves(layout: Layout, params: Params, write_metrics) -> None:
    for run, saved, error in (("random", None, 120.0), ("study", 0.01, 110.0), ("study_mask_90", 0.05, 119.0)):
        if saved is not None:
            measure(layout, params, run, {("view", "other"): saved})
        for seed in range(3):
            write_metrics(run, seed, error + seed)
    *_, pays, saves = found(layout, params).findings
    assert pays == (
        "Fine-tuning: of 2 runs 1 end below the PA-MPJPE of random weights (121.0 ± 2.5 mm). Best is study with "
        "111.0 ± 2.5 mm; all others are told from it. Decided over pre-trainings where both have several or one is "
        "untrained, else by intervals apart."
    )
    assert saves == (
        "Of those fine-tuned, the reference saves most in cross-view pairs in study_mask_90, with 120.0 ± 2.5 mm."
    )


def test_fine_tuning_is_told_as_in_the_table_of_differences(layout: Layout, params: Params, write_metrics) -> None:
    """The interval of a difference is narrower than the two of what it is between laid end to end."""
    errors = {"random": (119.0, 120.0, 121.0), "study": (116.0, 120.0), "study_mask_90": (116.5, 117.9, 116.2)}
    for seed, error in enumerate(errors["random"]):
        write_metrics("random", seed, error)
    for run in ("study", "study_mask_90"):
        measure(layout, params, run, {("view", "other"): 0.01})
        for number, error in enumerate(errors[run]):
            write_metrics(f"{run}_seed_{number}" if number else run, 0, error)
    metrics = metric_table.read(layout)
    repeated = repeats(metrics, params)
    assert repeated is not None
    better = {run: repeated.between(run, "random").better("pa_mpjpe") for run in ("study", "study_mask_90")}
    assert better == {"study": None, "study_mask_90": "study_mask_90"}
    *_, told, _ = found(layout, params).findings
    assert "of 2 runs 1 end below the PA-MPJPE of random weights (120.0 ± 2.5 mm)" in told
    assert "Best is study_mask_90 with 116.9 ± 2.3 mm; not told from it (1): study. Decided" in told


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ((105.0, 105.2), ["1 of 1", "study_looks_changed is better (\N{MINUS SIGN}5.0 ± 0.6 mm)."]),
        ((115.0, 115.2), ["1 of 1", "study_looks_changed is worse (+5.0 ± 0.6 mm)."]),
        ((105.0, 117.0), ["0 of 1", "Not told from study_looks: study_looks_changed (+0.9 ± 76.1 mm)."]),
    ],
)
def test_runs_with_other_seeds_are_compared_with_the_usual_one(
    layout: Layout, params: Params, write_metrics, changed: tuple[float, float], said: list[str]
) -> None:
    for run in ("study", "study_near", "study_looks", "study_looks_changed"):
        measure(layout, params, run, {("view", "other"): 0.01})
    for name, errors in (("study_looks", (110.0, 110.2)), ("study_looks_changed", changed)):
        for run, error in zip((name, f"{name}_seed_1"), errors, strict=True):
            for seed in range(3):
                write_metrics(run, seed, error + 0.1 * seed)
    by_usual = {part.usual.run: part.findings for part in found(layout, params).parts}
    number, end = said
    (part,) = (part for part in found(layout, params).parts if part.usual.run == "study_looks")
    assert ("study_looks_changed" in part.told) == (number == "1 of 1"), "filled in the figure as well"
    assert " ".join(by_usual["study_looks"][1:]) == (
        f"After fine-tuning, over 2 pre-trainings or more each, {number} runs are told from study_looks by their "
        f"PA-MPJPE. If none differed from it, up to about 0.1 would look so by luck. {end}"
    )
    assert not any("fine-tuning" in sentence for sentence in by_usual["study"])


def test_a_run_of_other_parameters_is_out_of_date(layout: Layout, params: Params) -> None:
    measure(layout, params, "study", {("view", "other"): 0.01})
    measure(layout, params, "study_mask_90", {("view", "other"): 0.01}, params_fingerprint="0" * 16)
    study = found(layout, params)
    assert [place.run for place in study.out_of_date] == ["study_mask_90"]
    (part,) = study.parts
    (factor,) = part.factors
    usual, changed = factor.curves[""]
    assert usual.stale is None
    assert changed.stale == "measured with other parameters than params.yaml has now"
    svg = figures.runs_of(part)
    assert ">as usual<" in svg and ">Mask ratio: 0.9 (out of date)<" in svg


def test_page_and_files_show_the_study(measured: Layout, params: Params, write_metrics) -> None:
    saved = {("view", "other"): 0.0123, ("view", "same"): 0.001, ("pose", "black"): 0.03}
    for run in ("study", "study_mask_90"):
        measure(measured, params, run, saved)
    measure(measured, params, "study_mask_95", saved, params_fingerprint="0" * 16)
    losses = {"study_mae": 0.61, "study_uniform": 0.64, "study_uniform_seed_1": 0.66, "study_uniform_batch_32": 0.64}
    for run, loss in losses.items():
        savings = saved if run.startswith("study_uniform") and "batch" not in run else {}
        measure(measured, params, run, savings, values={"heldout_loss_human": {"value": loss, "unit": "", "n": 512}})
    for run, mean in (("study_mae", 112.0), ("study_uniform", 110.0), ("study_uniform_batch_32", 113.0)):
        for name in (run,) if run == "study_uniform_batch_32" else (run, f"{run}_seed_1"):
            for seed in range(3):
                write_metrics(name, seed, mean + 0.1 * seed)
    for run in ("study", "study_mask_90"):
        for seed in range(3):
            write_metrics(run, seed, 115.0 + seed)
    (measured.root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    assert main(["--params", str(measured.root / "params.yaml"), "--root", str(measured.root)]) == 0
    page = (measured.report / "index.html").read_text().replace("<wbr>", "")
    assert "What makes the reference pay" in page
    assert '+0.0123<small class="paired">± 0.0045</small>' in page
    assert 'study_uniform.json">study_uniform</a> <small class="muted">\N{MULTIPLICATION SIGN}2</small></td>' in page
    assert "Of one pre-training, whose luck they do not cover: study, study_mask_90, study_mask_95." in page
    assert (measured.report / "figures" / "around-study.svg").read_text() in page
    assert "of these runs is what was measured then: study_mask_95 <span" in page
    assert "<td>study_uniform</td><td>32</td><td>16</td><td>0.6100</td><td>0.6500</td>" in page
    assert '+2.0 ± 0.0<small class="paired">over 2 pre-trainings</small></td><td>with</td>' in page
    assert '\N{MINUS SIGN}1.0 ± 0.0<small class="paired">one pre-training</small></td><td>without</td>' in page
    assert "study <small>pretrain</small>" not in page
    assert (measured.report / "figures" / "study-mask_ratio.svg").read_text().startswith("<svg")
    with (measured.report / "tables" / "reference_study.csv").open(newline="") as content:
        rows = list(csv.DictReader(content))
    (row,) = [
        row
        for row in rows
        if (row["run"], row["kind"], row["patches"], row["against"]) == ("study_mask_90", "view", "person", "other")
    ]
    assert (row["varies"], row["value"], row["mean"], row["num"]) == ("mask_ratio", "0.9", "0.01230", str(RECORDINGS))
    assert (row["pretrainings"], row["files"]) == ("1", "reports/metrics/mini/pretrain/study_mask_90.json")
    row = next(row for row in rows if row["run"] == "study_uniform")
    assert row["pretrainings"] == "2"
    assert row["files"] == " ".join(
        f"reports/metrics/mini/pretrain/{run}.json" for run in ("study_uniform", "study_uniform_seed_1")
    )
    tuned = next(row for row in rows if row["metric"] == "pa_mpjpe" and row["run"] == "study")
    assert (float(tuned["mean"]), tuned["num"]) == (116.0, "3")
