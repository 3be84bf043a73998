"""The paper as data: complete, consistent, and the same numbers as the reference transcription."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.layout import PROJECT
from pipeline.reporting import paper

REPORTS = PROJECT / "reports"


@pytest.fixture(scope="module")
def reference() -> paper.Reference:
    return paper.load(REPORTS)


def test_every_number_agrees_with_the_reference_transcription(reference, shared):
    theirs = yaml.safe_load((shared / "paper-tables.yaml").read_text())
    assert {table.id for table in reference.values.tables} == {table["id"] for table in theirs["tables"]}
    for table in theirs["tables"]:
        ours = reference.values.table(table["id"])
        assert {row.id: row.values for row in ours.rows} == {row["id"]: row["values"] for row in table["rows"]}
        for column in table["columns"]:
            metric = reference.values.metrics[ours.column(column["id"]).metric]
            assert (metric.unit, metric.better) == (column["unit"], column["direction"])


def test_every_claim_agrees_with_the_reference_transcription(reference, shared):
    theirs = yaml.safe_load((shared / "paper-tables.yaml").read_text())
    ours = {c.id: (c.table, c.column, c.better, c.worse, c.paper) for c in reference.claims.orderings}
    assert ours == {c["id"]: (c["table"], c["column"], c["better"], c["worse"], c["holds"]) for c in theirs["claims"]}
    limits = {c.id: (c.table, c.column, c.row, c.value) for c in reference.claims.thresholds}
    assert limits == {c["id"]: (c["table"], c["column"], c["row"], c["value"]) for c in theirs["threshold_claims"]}
    # w05 is a sentence of section 4.2 that the transcription passes over.
    assert [c.id for c in reference.claims.curves] == [*(c["id"] for c in theirs["claims_without_cells"]), "w05"]


def test_decimals_are_those_the_paper_prints(reference):
    table = reference.values.table("fig3a")
    assert [table.decimals(column.id) for column in table.columns] == [1, 1, 2, 2, 3, 3]


def copy_with(folder: Path, name: str, old: str, new: str) -> None:
    for path in REPORTS.glob("*.yaml"):
        shutil.copy(path, folder)
    text = (folder / name).read_text()
    assert text.count(old) == 1
    (folder / name).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("claims.yaml", "c04, table: fig3a, column: hand_mpvpe", "c04, table: fig3a, column: hand_x",
         "c04: table fig3a has no column 'hand_x'"),
        ("claims.yaml", "worse: mae_human, paper: false", "worse: mae_human, paper: true",
         "c14: marked `paper: True`, the paper's cells say False"),
        ("claims.yaml", "fig4, table: fig3a, rows: [croco_human, mae_", "fig4, table: fig3a, rows: [mae_",
         "w04: needs one row of ours for each of ['CroCo-Body', 'MAE-Body']"),
        ("claims.yaml", "fig4, table: fig3a, rows: [croco_human, mae_", "fig4, table: fig3a, rows: [mae, mae_",
         "w04: table fig3a has no row 'mae'"),
        ("rows.yaml", "      mask_human: {runs: [croco_body], where: {masking: human}}\n", "", "tables.t1d.rows are"),
        ("rows.yaml", "  MPVPE: mpvpe\n", "", "values.MPVPE is missing"),
        ("paper_values.yaml", "{id: i02, tables", "{id: i02, tablez", "notes.1.tables: Field required"),
    ],
)  # fmt: skip
def test_a_contradiction_names_file_and_entry(tmp_path, name, old, new, message):
    copy_with(tmp_path, name, old, new)
    with pytest.raises(paper.PaperError, match=re.escape(message)) as caught:
        paper.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
