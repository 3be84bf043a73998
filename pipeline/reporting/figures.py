"""Histories and filled tables -> plots as SVG: loss curves, and every seed beside the paper's number.

The same inputs give the same bytes: no dates, fixed ids, text kept as text. Ink is written
as `currentColor`, so that a plot inside the page follows its light or dark colours.
"""

from __future__ import annotations

import io
from collections.abc import Container, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.reporting.intervals import Interval, are_apart
from pipeline.reporting.reference_study import Factor, Part
from pipeline.reporting.studies import METRICS, Study
from pipeline.reporting.study_places import AGAINST, KINDS
from pipeline.reporting.table_files import heading
from pipeline.reporting.tables import Cell, Filled

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
COLOURS = ("#3d7fc7", "#d9772b", "#2f9e6e", "#a05cc0", "#c9a227", "#c0504d")
"""Read on light and on dark ground; told apart by most colour-blind readers."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "croco-human",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}

History = Sequence[Mapping[str, Any]]


def colour(name: str, names: Sequence[str]) -> str:
    """The colour of a run among all runs of the report; random weights are grey."""
    return (
        "#8a8a8a"
        if name == "random"
        else COLOURS[[other for other in names if other != "random"].index(name) % len(COLOURS)]
    )


@matplotlib.rc_context(STYLE)
def loss_curves(histories: Mapping[str, History], names: Sequence[str], title: str) -> str:
    """Loss against step, a colour per run from that of the first on: logged steps faint, their running mean bold."""
    figure, axes = _plain_figure(7.2, 3.0)
    first = COLOURS.index(colour(next(iter(histories)), names))
    for number, (name, history) in enumerate(histories.items()):
        _curve(axes, history, COLOURS[(first + number) % len(COLOURS)], name)
    axes.set(xlabel="step", ylabel="loss", title=title)
    if len(histories) > 1:
        axes.legend(frameon=False, loc="upper center")
    axes.margins(x=0.01)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def seed_curves(histories: Mapping[str, History], title: str, stroke: str) -> str:
    """Loss against step of one run's fine-tunings, one line per seed."""
    figure, axes = _plain_figure(7.2, 2.6)
    for name, history in histories.items():
        axes.plot(*_smooth(history), color=stroke, linewidth=1.1, alpha=0.75, label=name)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.margins(x=0.01)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def seeds_beside_paper(filled: Filled, columns: Sequence[str], names: Sequence[str]) -> str:
    """Per column two panels with their own axes: the paper's numbers, and every seed of ours.

    A dot is a seed, the bar their mean with its interval. Rows without a number of ours stay,
    marked `not run`.
    """
    rows = filled.table.rows
    figure, panels = _figure(8.4, 0.55 + 0.42 * len(rows), 2 * len(columns))
    positions = {row.id: len(rows) - 1 - number for number, row in enumerate(rows)}
    for number, column in enumerate(columns):
        of_paper, of_ours = panels[2 * number : 2 * number + 2]
        for row in rows:
            cell = filled.cells[row.id, column]
            stroke = colour(cell.run, names) if cell.run else INK
            if cell.paper is not None:
                of_paper.plot([cell.paper], [positions[row.id]], "D", color=stroke, markersize=5)
            _seeds(of_ours, cell, positions[row.id], stroke)
        of_paper.set_title("paper", fontsize=8)
        of_ours.set_title("ours", fontsize=8)
        name = heading(filled, filled.table.column(column))
        of_paper.set_xlabel(name, fontsize=8, loc="left")
        for axes in (of_paper, of_ours):
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.set_yticks(list(positions.values()), [""] * len(rows))
            axes.tick_params(axis="y", length=0)
            axes.tick_params(axis="x", labelsize=7)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            axes.margins(x=0.12)
            axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(list(positions.values()), [row.label for row in rows])
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def study_curves(study: Study, names: Sequence[str]) -> str:
    """One panel per metric: means over seeds joined by lines, bands for their intervals."""
    figure, panels = _figure(8.4, 3.0, len(METRICS))
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        for run, points in study.curves.items():
            shown = [(point.x, point.values[metric]) for point in points if metric in point.values]
            x, means, stroke = [x for x, _ in shown], [found.mean for _, found in shown], colour(run, names)
            half = [found.half_width or 0.0 for _, found in shown]
            axes.plot(x, means, "o-", color=stroke, linewidth=1.6, markersize=4, label=run)
            low, high = np.array(means) - half, np.array(means) + half
            axes.fill_between(x, low, high, color=stroke, alpha=0.18, linewidth=0)
        axes.set(xlabel=study.x, ylabel=f"{name} (mm)")
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    panels[0].legend(frameon=False, fontsize=8)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def runs_of(part: Part) -> str:
    """All runs of a part of the study below each other: what the true reference saves, a panel per kind of pairs, and
    PA-MPJPE. A dotted line goes through the usual run; filled is what is told from it, or from 0 in what is the
    reference's own.
    """
    rows = {place.run: len(part.runs) - 1 - number for number, place in enumerate(part.runs)}
    figure, panels = _figure(8.4, 1.1 + 0.2 * len(rows), len(part.kinds) + part.fine_tuned)
    nothing = Interval(0.0, 0.0, 1)
    for axes, kind in zip(panels, part.kinds, strict=False):
        of_other, of_same = (
            {rows[place.run]: place.savings.get((kind, "person", against)) for place in part.runs}
            for against in ("other", "same")
        )
        usual = part.usual.savings.get((kind, "person", "other"))
        for shown, beside, shift, stroke, against in (
            (of_other, usual, 0.14, COLOURS[0], "other"),
            (of_same, nothing, -0.14, COLOURS[1], "same"),
        ):
            filled = {row for row, found in shown.items() if are_apart(found, beside)}
            _across(axes, shown, filled, shift, stroke, f"instead of {AGAINST[against]}")
        if usual:
            axes.axvline(usual.mean, color=COLOURS[0], linewidth=0.9, linestyle=":")
        axes.axvline(0, color=INK, linewidth=0.6, alpha=0.4)
        axes.set_title(f"{KINDS[kind]} pairs")
        axes.set_xlabel("loss the true reference saves", fontsize=7.5)
    if part.fine_tuned:
        errors = {rows[place.run]: place.pa_mpjpe for place in part.runs}
        _across(panels[-1], errors, {rows[run] for run in part.told}, 0, INK, "")
        if part.usual.pa_mpjpe:
            panels[-1].axvline(part.usual.pa_mpjpe.mean, color=INK, linewidth=0.9, linestyle=":")
        panels[-1].set_title("after fine-tuning")
        panels[-1].set_xlabel("PA-MPJPE (mm)", fontsize=7.5)
    for axes in panels:
        axes.set_yticks(list(rows.values()), [""] * len(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        axes.locator_params(axis="x", nbins=5)
    called = [f"{place.label} (out of date)" if place.stale else place.label for place in part.runs]
    panels[0].set_yticks(list(rows.values()), called, fontsize=7)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=7)
    return _svg(figure)


def _across(
    axes: Axes, shown: Mapping[int, Interval | None], filled: Container[int], shift: float, stroke: str, label: str
) -> None:
    """Intervals lying at their rows, `shift` above them."""
    for row, found in shown.items():
        if found is not None:
            axes.errorbar(
                found.mean, row + shift, xerr=found.half_width or 0.0, color=stroke, marker="o", markersize=3.6,
                markerfacecolor=stroke if row in filled else "none", elinewidth=1.0, label=label,
            )  # fmt: skip
            label = "_"  # one entry of the legend


@matplotlib.rc_context(STYLE)
def factor_curves(factor: Factor) -> str:
    """What the true reference saves on the person's hidden patches, a panel per kind of pairs, and PA-MPJPE."""
    figure, panels = _figure(8.4, 3.2, len(factor.kinds) + factor.fine_tuned)
    places = {label: number for number, label in enumerate(factor.labels)}
    dashes = dict(zip(factor.curves, ("-", "--", ":", "-.") * len(factor.curves), strict=False))
    for axes, kind in zip(panels, factor.kinds, strict=False):
        for besides, curve in factor.curves.items():
            for number, (against, reference) in enumerate(AGAINST.items()):
                shown = {place.label: place.savings.get((kind, "person", against)) for place in curve}
                label = f"{reference}, {besides}" if besides else reference
                _with_bars(axes, places, shown, dashes[besides], COLOURS[number], label)
        axes.axhline(0, color=INK, linewidth=0.6, alpha=0.4)
        axes.set(title=f"{KINDS[kind]} pairs", ylabel="loss the true reference saves")
    if factor.fine_tuned:
        for besides, curve in factor.curves.items():
            _with_bars(
                panels[-1], places, {place.label: place.pa_mpjpe for place in curve}, dashes[besides], INK, besides
            )
        panels[-1].set(title="after fine-tuning", ylabel="PA-MPJPE (mm)")
    for axes in panels:
        axes.set_xticks(list(places.values()), list(places), fontsize=7)
        axes.set(xlabel=factor.title, xlim=(-0.3, len(places) - 0.7))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside lower center", ncols=len(AGAINST), frameon=False, fontsize=7,
        title="saved against", title_fontsize=7, handlelength=3,
    )  # fmt: skip
    return _svg(figure)


def _with_bars(
    axes: Axes, places: Mapping[str, int], shown: Mapping[str, Interval | None], dash: str, stroke: str, label: str
) -> None:
    known = {places[name]: found for name, found in shown.items() if found is not None}
    axes.errorbar(
        list(known), [found.mean for found in known.values()], [found.half_width or 0.0 for found in known.values()],
        color=stroke, linestyle=dash, marker="o", markersize=4, linewidth=1.4, elinewidth=0.8, capsize=2, label=label,
    )  # fmt: skip


def _seeds(axes: Axes, cell: Cell, y: float, stroke: str) -> None:
    if cell.ours is None:
        axes.text(
            0.5, y, "not run", transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=7, alpha=0.55
        )
        return
    if cell.ours.half_width is not None:
        axes.plot(
            [cell.ours.low, cell.ours.high], [y, y], "-", color=stroke, linewidth=6, alpha=0.28, solid_capstyle="butt"
        )
    axes.plot([cell.ours.mean] * 2, [y - 0.24, y + 0.24], "-", color=stroke, linewidth=1.8)
    values = list(cell.by_seed.values())
    axes.plot(values, [y] * len(values), "o", color=stroke, markersize=4, markeredgecolor="none", alpha=0.85)


def _curve(axes: Axes, history: History, stroke: str, label: str) -> None:
    axes.plot(
        [item["step"] for item in history], [item["loss"] for item in history], color=stroke, linewidth=0.6, alpha=0.3
    )
    axes.plot(*_smooth(history), color=stroke, linewidth=1.8, label=label)


def _smooth(history: History) -> tuple[list[int], list[float]]:
    """Running mean over the last tenth of the logged steps, shorter at the start."""
    steps = [int(item["step"]) for item in history]
    total = np.concatenate([[0.0], np.cumsum([float(item["loss"]) for item in history])])
    window = max(1, len(steps) // 10)
    ends = np.arange(1, len(steps) + 1)
    starts = np.maximum(0, ends - window)
    return steps, ((total[ends] - total[starts]) / (ends - starts)).tolist()


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, with as much room around them as their labels take."""
    return _empty(Figure(figsize=(width, height), layout="constrained"), columns)


def _plain_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """One panel for short labels: there are hundreds of these, and to find the room for labels is most of the work."""
    left, right, bottom, top = 0.62, 0.1, 0.46, 0.3  # inches
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    figure, (axes,) = _empty(figure, 1)
    return figure, axes


def _empty(figure: Figure, columns: int) -> tuple[Figure, list[Axes]]:
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, columns, squeeze=False).ravel().tolist()
    figure.patch.set_alpha(0)
    for axes in panels:
        axes.patch.set_alpha(0)
    return figure, panels


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    # Only the <svg> element: the page holds it inline, and a file of it is a valid picture as well.
    return text[text.index("<svg") :].replace(INK, "currentColor")
