"""Filled tables -> CSV (one line per cell, everything known about it), Markdown and LaTeX, and their texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from math import isfinite
from pathlib import Path

from pipeline.reporting.intervals import Interval, Verdict
from pipeline.reporting.metric_table import MetricsFile
from pipeline.reporting.paper import Column, Row
from pipeline.reporting.tables import Cell, Filled

MISSING = "not run"
STALE = "out of date"


def write(filled: Filled, folder: Path, root: Path) -> None:
    """Write <table>.csv, <table>.md and <table>.tex; file names in the CSV are relative to `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("csv", to_csv(filled, root)), ("md", to_markdown(filled)), ("tex", to_latex(filled))):
        (folder / f"{filled.table.id}.{suffix}").write_text(text)


CSV_HEADER = (
    *("table", "row", "row_label", "column", "metric", "task", "unit", "better", "paper", "ours", "low", "high"),
    *("num_seeds", "seeds", "run", "ordering_vs_default", "paired_difference", "paired_low", "paired_high"),
    *("paired_ordering", "over_pretrainings", "over_pretrainings_low", "over_pretrainings_high"),
    *("num_pretrainings", "num_pretrainings_default", "missing", "stale", "images", "files", "compared_files"),
)


def to_csv(filled: Filled, root: Path) -> str:
    """One line per cell with everything known about it; empty = does not apply, reasons under `missing`."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_HEADER)
    for cell in filled.cells.values():
        against = filled.against_default(cell)
        rows.writerow(
            (
                *(cell.table, cell.row.id, cell.row.label, cell.column.id, cell.column.metric, cell.column.task),
                *(cell.unit, cell.better, number(cell.paper), *interval_numbers(cell.ours)),
                *(len(cell.by_seed), " ".join(map(str, sorted(cell.by_seed))), cell.run or ""),
                *(against.verdict if against else "", *interval_numbers(against.paired if against else None)),
                against.paired_verdict if against else "",
                *interval_numbers(against.over_pretrainings if against else None),
                *((against and against.pretrainings) or ("", "")),
                *(cell.missing or "", cell.stale or "", _images(filled, cell), names(cell.files, root)),
                names(against.files, root) if against and against.verdict is not Verdict.NOT_RUN else "",
            )
        )
    return out.getvalue()


def _images(filled: Filled, cell: Cell) -> str:
    return "" if cell.ours is None else "stand-ins" if filled.images else "photographs"


def number(value: float | None) -> str:
    """At most six digits behind the point: more than any interval here can tell apart. Empty for no finite number."""
    return "" if value is None or not isfinite(value) else f"{value:.6f}".rstrip("0").rstrip(".")


def interval_numbers(interval: Interval | None) -> tuple[str, str, str]:
    """Mean, low, high as text, each empty where there is none."""
    return ("", "", "") if interval is None else (number(interval.mean), number(interval.low), number(interval.high))


def names(files: Sequence[MetricsFile], root: Path) -> str:
    """Of the files, relative to `root`."""
    return " ".join(file.path.relative_to(root).as_posix() for file in files)


def over_text(pretrainings: tuple[int, int]) -> str:
    """`over 5 pre-trainings`: what a difference over pre-trainings rests on."""
    few, many = sorted(pretrainings)
    if few == 0:
        return f"over {many} pre-trainings and one draw of random weights"
    return f"over {few} pre-trainings" if few == many else f"over {' and '.join(map(str, pretrainings))} pre-trainings"


def paper_text(cell: Cell) -> str:
    return "\N{EN DASH}" if cell.paper is None else f"{cell.paper:.{cell.decimals}f}"


def ours_text(cell: Cell) -> str:
    """`57.4 ± 0.8 (3 seeds)`, marked when it is out of date; or why there is nothing."""
    if cell.ours is None:
        return f"{MISSING}: {cell.missing}"
    seeds = f"{cell.ours.num} seed{'s' * (cell.ours.num != 1)}"
    if cell.ours.num != cell.num_planned:
        seeds = f"{cell.ours.num} of {cell.num_planned} seeds"
    written = cell.ours.written(cell.decimals)
    return f"{written} ({seeds}{f', {STALE}: {cell.stale}' if cell.stale else ''})"


def ordering_text(filled: Filled, cell: Cell) -> str:
    """The verdict, and the difference over pre-trainings that it rests on, where it rests on one."""
    against = filled.against_default(cell)
    if against is None:
        return "reference" if cell.row.default else ""
    if against.over_pretrainings is None or against.pretrainings is None:
        return str(against.verdict)
    difference = against.over_pretrainings.written(cell.decimals, "+")
    return f"{against.verdict} ({difference} {over_text(against.pretrainings)})"


def row_text(row: Row) -> str:
    return f"{row.label} ({row.group})" if row.group else row.label


def how_to_read(filled: Filled) -> str | None:
    """What the numbers of ours are, for who meets the table alone; None where there are none."""
    if not filled.num_measured:
        return None
    text = (
        f"Ours are means over fine-tuning seeds of one pre-training ± half the width of their {filled.confidence:.0%} "
        "Student-t interval."
    )
    if filled.num_compared:
        text += (
            " Whether the paper's order against the row in bold holds is judged by the interval of the difference over "
            "pre-trainings, this row minus that one, where it is given, else by the two intervals."
        )
    return text if filled.images is None else f"{text} {filled.images}"


def to_markdown(filled: Filled) -> str:
    """Three columns per metric: paper, ours, whether the paper's order against its default row holds."""
    table = filled.table
    lines = [f"# {table.label}: {table.title}", "", table.setting, ""]
    lines += [line for text in (how_to_read(filled), filled.remark) if text for line in (text, "")]
    head = ["row"]
    for column in table.columns:
        name = heading(filled, column)
        head += [f"{name}, paper", "ours", "order holds?"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reasons: list[str] = []
    for row in table.rows:
        texts = [f"**{row_text(row)}**" if row.default else row_text(row)]
        for column in table.columns:
            cell = filled.cells[row.id, column.id]
            ours = ours_text(cell) if cell.missing is None else f"{MISSING} [{_footnote(reasons, cell.missing)}]"
            texts += [paper_text(cell), ours, ordering_text(filled, cell)]
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
    lines += ["", *(f"[{number}] {reason}  " for number, reason in enumerate(reasons, start=1))]
    return "\n".join(lines).rstrip() + "\n"


def heading(filled: Filled, column: Column) -> str:
    """`Hand PA-MPJPE (mm, lower is better)`."""
    cell = filled.cells[filled.table.default.id, column.id]
    task = TASK_NAMES.get(column.task, column.task)
    unit = "" if cell.unit == "fraction" else f"{cell.unit}, "
    return f"{task} {column.heading} ({unit}{cell.better} is better)"


TASK_NAMES = {
    "body_mesh": "Body",
    "hand_mesh": "Hand",
    "dense_pose": "DensePose",
    "gesture": "Gesture",
    "grasp": "Grasp",
}


def _footnote(reasons: list[str], reason: str) -> int:
    if reason not in reasons:
        reasons.append(reason)
    return reasons.index(reason) + 1


LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
}  # fmt: skip


def latex(text: str) -> str:
    """Text with LaTeX's own characters escaped."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def to_latex(filled: Filled) -> str:
    """A `table` environment (needs booktabs), a tabular per task: per metric the paper's value, ours, the order."""
    table = filled.table
    reasons: list[str] = []
    tabulars = []
    for task, of_task in groupby(table.columns, lambda column: column.task):
        columns = list(of_task)
        body = []
        for row in table.rows:
            label = latex(row_text(row))
            texts = [rf"\textbf{{{label}}}" if row.default else label]
            for column in columns:
                cell = filled.cells[row.id, column.id]
                missing = cell.missing and rf"\emph{{{MISSING}}}$^{{{_footnote(reasons, cell.missing)}}}$"
                texts += [
                    latex(paper_text(cell)),
                    missing or latex(ours_text(cell)),
                    latex(ordering_text(filled, cell)),
                ]
            body.append(" & ".join(texts) + r" \\")
        names = [rf"\multicolumn{{3}}{{c}}{{{latex(heading(filled, column))}}}" for column in columns]
        tabulars += [
            rf"\begin{{tabular}}{{l{'rrl' * len(columns)}}}",
            r"\toprule",
            " & ".join([latex(TASK_NAMES.get(task, task)), *names]) + r" \\",
            " & ".join([""] + ["paper & ours & order holds?"] * len(columns)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}\par\medskip",
        ]
    notes = [f"({number}) {reason}." for number, reason in enumerate(reasons, start=1)]
    caption = [f"{table.label}: {table.title}. {table.setting}", how_to_read(filled), filled.remark, *notes]
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{latex(' '.join(filter(None, caption)))}}}",
        *tabulars,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
