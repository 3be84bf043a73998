"""What the study of the reference has found, in sentences that follow the numbers: none is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.reporting.intervals import Interval, Verdict, above, ordered, student_t
from pipeline.reporting.metric_table import MetricTable
from pipeline.reporting.repeats import Comparison, Repeats
from pipeline.reporting.study_places import KINDS, Place, errors_by_seed, fine_tunings
from pipeline.run_spec import Params


def extremes(places: Sequence[Place]) -> str:
    """Where on a curve the reference saves most and least; empty where nothing can be compared."""
    parts = []
    for kind, name in KINDS.items():
        key = (kind, "person", "other")
        shown = [place for place in places if key in place.savings]
        if len(shown) < 2:
            continue
        most, least = (pick(shown, key=lambda place: place.savings[key].mean) for pick in (max, min))
        apart = ordered(least.savings[key], most.savings[key]) is Verdict.HOLDS
        alone = "" if min(len(most.files), len(least.files)) > 1 else " (not over several pre-trainings)"
        parts.append(
            f"in {name} pairs most at {most.label} ({most.savings[key].written(4)}) and least at {least.label} "
            f"({least.savings[key].written(4)}), intervals that {'lie apart' if apart else 'overlap'}{alone}"
        )
    return "; ".join(parts)


def of_the_usual(usual: Place) -> list[str]:
    """What the reference gives in the usual run, and which part of that is looks."""
    found = []
    for kind, name in KINDS.items():
        other, same = (usual.savings.get((kind, "person", against)) for against in ("other", "same"))
        if other is None:
            continue
        over = f", over {len(usual.files)} pre-trainings" if len(usual.files) > 1 else ""
        text = f"{usual.run}, {name} pairs{over}: the true reference instead of another recording's {_moves(other)}."
        if same is not None:
            text += f" Instead of another image of the same recording it {_moves(same)}"
            own, shared = above(same), "what the images of a recording share"
            if above(other) is Verdict.HOLDS and own is Verdict.UNDECIDED and same.half_width is not None:
                text += (
                    f": it is seen to give {shared}, looks above all, and is not seen to give anything of its own "
                    f"(at most {same.high:.4f})"
                )
            elif above(other) is Verdict.HOLDS and own is Verdict.FAILS:
                text += f": it is seen to give {shared}, looks above all, and nothing of its own"
            elif above(other) is Verdict.HOLDS and own is Verdict.HOLDS and same.mean < other.mean:
                text += f": that is its own, the rest {shared}"
            text += "."
        found.append(text)
    return found


def of_other_seeds(usual: str, compared: Sequence[Comparison], confidence: float) -> list[str]:
    """Which runs are better or worse than the usual one after fine-tuning, over pre-trainings."""
    apart = {two.one: two.apart["pa_mpjpe"] for two in compared}
    better = {two.one: two.better("pa_mpjpe") for two in compared}
    told = {run: interval for run, interval in apart.items() if better[run]}
    rest = {run: interval for run, interval in apart.items() if not better[run]}
    best_first = sorted(told, key=lambda run: told[run].mean)
    least = min(interval.num for interval in apart.values())
    found = [
        f"After fine-tuning, over {least} pre-trainings or more each, {len(told)} of {len(apart)} runs are told "
        f"from {usual} by their PA-MPJPE. If none differed from it, up to about {len(apart) * (1 - confidence):.1f} "
        "would look so by luck."
    ]
    if told:
        said = (
            f"{run} is {'better' if better[run] == run else 'worse'} ({told[run].written(1, '+')} mm)"
            for run in best_first
        )
        found[0] += f" {', '.join(said)}."
    if rest:
        said = (f"{run} ({interval.written(1, '+')} mm)" for run, interval in rest.items())
        found.append(f"Not told from {usual}: {', '.join(said)}.")
    return found


def most_saved(places: Mapping[str, Place], first: str) -> list[str]:
    """In which run the true reference saves most, beside the first."""
    found = []
    for kind, name in KINDS.items():
        key = (kind, "person", "other")
        saved = {run: place.savings[key] for run, place in places.items() if key in place.savings}
        if len(saved) > 1 and first in saved:
            most = max(saved, key=lambda run: saved[run].mean)
            found.append(
                f"In {name} pairs the true reference instead of another recording's saves most in {most}: "
                f"{saved[most].written(4)}"
                + ("." if most == first else f", where {first} has {saved[first].written(4)}.")
            )
    return found


def of_its_own(places: Mapping[str, Place], params: Params) -> list[str]:
    """Where the reference gives what another image of its recording does not."""
    found = []
    for kind, name in KINDS.items():
        savings = {
            run: saved for run, place in places.items() if (saved := place.savings.get((kind, "person", "same")))
        }
        if not savings:
            continue
        seen = {run: saved for run, saved in savings.items() if above(saved) is Verdict.HOLDS}
        most_first = sorted(seen, key=lambda run: -seen[run].mean)
        where = ", ".join(f"{run} ({seen[run].written(4)})" for run in most_first)
        by_luck = len(savings) * (1 - params.report.confidence) / 2
        found.append(
            f"In {name} pairs the reference is seen to give something of its own, beyond what another image of the "
            f"same recording gives, in {len(seen)} of {len(savings)} runs{f': {where}' if where else ''}. If it gave "
            f"nothing in any, about {by_luck:.1f} would look so by luck."
        )
    return found


def of_fine_tuning(
    places: Mapping[str, Place], metrics: MetricTable, params: Params, other_seeds: Repeats | None
) -> list[str]:
    """Whether pre-training, and a reference that saves more, make fine-tuning better."""
    tuned = {run: place for run, place in places.items() if place.pa_mpjpe is not None}
    init = params.pretrain[params.study[0]].init
    start = list(errors_by_seed(fine_tunings(init, metrics, params)).values())
    if len(tuned) < 2 or not start:
        return []
    without = student_t(start, params.report.confidence)
    errors = {run: place.pa_mpjpe for run, place in tuned.items() if place.pa_mpjpe}

    def is_below(one: str, other: str) -> bool:
        between = other_seeds.between(one, other) if other_seeds else None
        if between:
            return between.better("pa_mpjpe") == one
        return ordered(errors[one], errors.get(other, without)) is Verdict.HOLDS

    better = [run for run in errors if is_below(run, init)]
    best = min(errors, key=lambda run: errors[run].mean)
    like_it = [run for run in errors if run != best and not is_below(best, run)]
    found = [
        f"Fine-tuning: of {len(errors)} runs {len(better)} end below the PA-MPJPE of {init} weights "
        f"({without.written(1)} mm). Best is {best} with {errors[best].written(1)} mm; "
        + (f"not told from it ({len(like_it)}): {', '.join(like_it)}. " if like_it else "all others are told from it. ")
        + "Decided over pre-trainings where both have several or one is untrained, else by intervals apart."
    ]
    for kind, name in KINDS.items():
        saved = {
            run: place.savings[kind, "person", "other"].mean
            for run, place in tuned.items()
            if (kind, "person", "other") in place.savings
        }
        if len(saved) > 1:
            most = max(saved, key=saved.__getitem__)
            found.append(
                f"Of those fine-tuned, the reference saves most in {name} pairs in {most}, "
                + (
                    "the very one that is best after fine-tuning."
                    if most == best
                    else f"with {errors[most].written(1)} mm."
                )
            )
    return found


def _moves(saving: Interval) -> str:
    how = {Verdict.HOLDS: "lowers", Verdict.FAILS: "raises"}.get(above(saving))
    if how is None:
        return f"is not seen to change the loss over the person's hidden patches ({saving.written(4)} lower)"
    return f"{how} the loss over the person's hidden patches by {(saving if saving.mean > 0 else -saving).written(4)}"
