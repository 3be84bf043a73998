"""What holds the rooms together: import directions, parameters of every scale, one graph for all of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.parameters import params_files
from pipeline import datasets, run_spec
from pipeline.layout import Layout
from pipeline.reporting import paper
from pipeline.reporting.tables import find_run

PROJECT = Path(__file__).resolve().parents[1]
SCALES = [PROJECT / name for name in params_files()]


def stages(file: str = "dvc.yaml") -> dict[str, Any]:
    return yaml.safe_load((PROJECT / file).read_text())["stages"]


def test_imports_go_from_flows_to_pipeline_to_models_and_never_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as run; run()"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "3 kept, 0 broken" in done.stdout, done.stdout + done.stderr


def test_there_are_three_scales() -> None:
    assert [run_spec.load(path).scale for path in SCALES] == ["mini", "gpu", "paper"]


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_a_params_file_knows_where_it_lies(path: Path) -> None:
    params = run_spec.load(path)
    assert (path.parent / params.root).resolve() == PROJECT
    assert PROJECT / params.params_file == path
    assert PROJECT / params.report_folder == Layout(params.scale).report


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_every_dataset_of_a_scale_has_a_module_and_a_folder_for_real_data(path: Path) -> None:
    params = run_spec.load(path)
    of_the_study = {*run_spec.load(SCALES[0]).study_datasets}
    assert of_the_study
    assert set(params.datasets) == {*datasets.names()} - (set() if params.study else of_the_study)
    for name in params.datasets:
        assert (Layout(params.scale).raw(name) / "SOURCE.md").is_file(), f"data/raw/{name}/SOURCE.md is missing"


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_every_stand_in_has_sizes_that_its_dataset_understands(path: Path) -> None:
    for name, section in run_spec.load(path).datasets.items():
        if section.standin:
            assert datasets.get(name).shards(datasets.get(name).sizes(dict(section.standin)))


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_crops_inputs_and_patches_of_a_scale_fit_each_other(path: Path) -> None:
    params = run_spec.load(path)
    assert params.pairs.input_size <= params.crops.size
    assert params.pairs.input_size % params.pairs.patch == 0
    assert params.body_mesh.input_size == params.pairs.input_size


@pytest.mark.parametrize("path", SCALES[1:], ids=lambda path: path.parent.name)
def test_every_scale_has_the_same_graph(path: Path) -> None:
    for graph in ("dvc.yaml", "tables/dvc.yaml"):
        assert (path.parent / graph).read_text() == (PROJECT / graph).read_text(), "`make scales` copies it again"


def test_the_graph_names_every_dataset_with_its_module_and_its_pool() -> None:
    params = run_spec.load(SCALES[0])
    people = {name: item.pool for name, item in params.datasets.items() if item.pool in ("body", "body_mesh")}
    parse, index = stages()["parse"]["foreach"], stages()["index"]["foreach"]
    assert {name: item["pool"] for name, item in parse.items()} == people
    assert stages()["pair"]["foreach"] == [name for name in people if params.datasets[name].pairs]
    for modules in (stages()["standin"]["foreach"], {name: item["module"] for name, item in index.items()}):
        assert set(modules) == set(people)
        for name, module in modules.items():
            assert type(datasets.get(name)).__module__ == f"pipeline.datasets.{module}"


FURTHER = ("hand", "static", "looks")
"""Pools that only the further tables need."""
STEPS = ("standin", "index", "parse", "pair")
"""Of a data set."""


def of_pool(pool: str) -> list[str]:
    return [name for name, section in run_spec.load(SCALES[0]).datasets.items() if section.pool == pool]


def each(stage: dict[str, Any]) -> Any:
    """What a stage is repeated for; those of the study stand in the params, and are called as their modules."""
    found = stage["foreach"]
    return {name: name for name in run_spec.load(SCALES[0]).study_datasets} if found == "${study_datasets}" else found


@pytest.mark.parametrize("pool", FURTHER)
def test_the_tables_graph_names_every_dataset_of_its_pools(pool: str) -> None:
    names = of_pool(pool)
    assert names
    tables = stages("tables/dvc.yaml")
    for step in ("parse", "pair"):
        assert list(each(tables[f"{step}_{pool}"])) == names
    for step in ("standin", "index"):
        assert list(each(tables[f"{step}_{pool}"])) == names
        for name, module in each(tables[f"{step}_{pool}"]).items():
            assert type(datasets.get(name)).__module__ == f"pipeline.datasets.{module}"


def test_the_headline_rests_on_its_own_pools_alone() -> None:
    outs = {
        out
        for pool in FURTHER
        for step in STEPS
        for stage in [stages("tables/dvc.yaml")[f"{step}_{pool}"]]
        for name in of_pool(pool)
        for out in (o.replace("${key}", name).replace("${item}", name) for o in stage["do"]["outs"])
    }
    for stage in stages().values():
        for dependency in stage.get("do", stage)["deps"]:
            assert not any(out == dependency or out.startswith(f"{dependency}/") for out in outs), dependency
    for file in ("dvc.yaml", "tables/dvc.yaml"):
        named = {
            dep
            for name in ("pretrain", "pretrain_ablation", "pretrain_study")
            for dep in stages(file).get(name, {"do": {"deps": []}})["do"]["deps"]
        }
        data = {dep for dep in named if dep.startswith("data/")}
        assert data == {
            f"data/${{scale}}/{kind}"
            for kind in ("crops/${item.pool}", "pairs/${item.pool}", "checkpoints/${item.init}")
        }


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_every_run_that_fills_a_body_row_of_the_paper_is_fine_tuned(path: Path) -> None:
    params, reference = run_spec.load(path), paper.load(PROJECT / "reports")
    filling = set()
    for table in reference.values.tables:
        for task in {column.task for column in table.columns} & {"body_mesh"}:
            if not reference.rows.task(table.id, task).absent:
                rows = [reference.rows.row(table.id, row.id, task) for row in table.rows]
                filling |= {run for row in rows for run, _ in [find_run(row, params)] if run}
    assert len(filling) > 10
    assert filling <= {*params.finetune.body_mesh.headline, *params.finetune.body_mesh.tables}


def test_both_graphs_fine_tune_what_the_params_say() -> None:
    assert stages()["finetune_body_mesh"]["foreach"] == "${finetune.body_mesh.headline}"
    assert stages("tables/dvc.yaml")["finetune_body_mesh_ablation"]["foreach"] == "${finetune.body_mesh.tables}"


@pytest.mark.parametrize("file", ["dvc.yaml", "tables/dvc.yaml"])
def test_the_lock_files_know_no_stage_that_is_gone(file: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only", file],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    there = {name.rpartition(":")[2] for name in listed}
    locked = yaml.load((PROJECT / file).with_suffix(".lock").read_text(), run_spec.SAFE_LOADER)["stages"]
    assert locked
    assert not set(locked) - there


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_a_run_that_learns_keypoints_depends_on_the_records_they_stand_in(path: Path) -> None:
    learning = {name: run for name, run in run_spec.load(path).pretrain.items() if run.learns_keypoints}
    assert list(learning) == list(yaml.safe_load(path.read_text())["keypoints"])
    records = {f"data/${{scale}}/records/{dataset}.parquet" for run in learning.values() for dataset in run.datasets}
    assert records <= set(stages("tables/dvc.yaml")["pretrain_keypoints"]["do"]["deps"])


@pytest.mark.parametrize("file", ["dvc.yaml", "tables/dvc.yaml"])
def test_every_code_dependency_exists_and_every_output_names_the_scale(file: str) -> None:
    checked = 0
    for name, stage in stages(file).items():
        stage = stage.get("do", stage)
        for dependency in stage["deps"]:
            if "$" not in dependency and not dependency.startswith("data/"):
                assert (PROJECT / dependency).exists(), f"{name} depends on {dependency}"
                checked += 1
        for out in [*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])]:
            out = out if isinstance(out, str) else next(iter(out))
            assert "${scale}" in out or "${report_folder}" in out, f"{name} writes {out}"
    assert checked > 20


@pytest.mark.parametrize("file", ["dvc.yaml", "tables/dvc.yaml"])
def test_the_command_of_every_stage_ends_with_the_dvc_that_started_it(file: str) -> None:
    modules = {re.match(r"python -m (\S+) ", stage.get("do", stage)["cmd"])[1] for stage in stages(file).values()}
    assert len(modules) > 5
    for module in modules:
        code = PROJECT / module.replace(".", "/")
        text = (code / "__main__.py" if code.is_dir() else code.with_suffix(".py")).read_text()
        assert "    die_with_parent()\n" in text or "    with process.command():\n" in text, module


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[=<>]", line)[0].lower() for line in project["dependencies"]}
    distributions = packages_distributions()
    found = set()
    for file in (path for room in ("models", "pipeline", "flows") for path in (PROJECT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    assert {"torch", "jinja2", "yaml"} <= found
    outside = found - {*sys.stdlib_module_names, "models", "pipeline", "flows"}
    assert {name for name in outside if not {item.lower() for item in distributions[name]} & declared} == set()


def test_the_lock_pins_everything_and_names_no_place_to_get_it_from() -> None:
    lines = [line.split(" ;")[0] for line in (PROJECT / "requirements.txt").read_text().splitlines() if line[:1] != "#"]
    assert len(lines) > 200
    assert all(line.count("==") == 1 and "/" not in line and not line.startswith("-") for line in lines)


@pytest.mark.parametrize("known", ['"git_revision": "[0-9a-f]{40}"', '"hardware": "'], ids=["revision", "hardware"])
def test_what_was_measured_and_committed_tells_its_code_and_its_machine(known: str) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("needs the history of the project")
    # The revision of a work tree with changes ends in a plus: nobody could run that code again.
    search = ["git", "grep", "--extended-regexp", "--files-without-match", known, "HEAD", "--", "reports/metrics"]
    found = subprocess.run(search, cwd=PROJECT, capture_output=True, text=True)
    assert not found.stderr
    assert not found.stdout, f"to be measured again from a commit:\n{found.stdout}"
