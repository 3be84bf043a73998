"""The graph knows the code: whatever a stage imports and could change its result is among the stage's dependencies."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipeline import run_spec
from pipeline.tasks import body_mesh
from pipeline.training import parser, pretrain
from pipeline.training.provenance import code_fingerprints

PROJECT = Path(__file__).resolve().parents[1]

HARMLESS = {
    "pipeline/code.py": "which code an unfinished result is of",
    "pipeline/layout.py": "says where files lie; the graph says it again",
    "pipeline/process.py": "how a process ends, and what its machine has",
    "pipeline/run_spec.py": "checks parameters; their values are dependencies",
    "pipeline/datasets/__init__.py": "finds data sets by name",
    "pipeline/datasets/source.py": "how to get a data set, and whether its folder is complete",
    "pipeline/training/checkpoint.py": "state of an unfinished run",
    "pipeline/training/live.py": "figures to watch a run by",
    "pipeline/training/unfinished.py": "whether a run goes on or starts afresh",
    "pipeline/training/team.py": "who computes what of a step; by rounding only it changes results",
    "pipeline/training/model_card.py": "says what is known of a checkpoint",
    "pipeline/training/provenance.py": "notes on where a result comes from",
    # A file in another format has other bytes, and those are dependencies.
    "pipeline/manifests.py": "reads a checked format",
    "pipeline/records.py": "describes that format",
    "models/checkpoints.py": "reads a checked format",
    "models/weight_files.py": "reads a checked format",
}
"""Modules that can not change the result of a stage that does not name them, and why; what only they import neither."""

HANDS = {"pipeline/datasets/hands.py", "pipeline/datasets/hand_studio.py"}
WORLD = {"pipeline/bodies", "pipeline/motions", "pipeline/rendering", "pipeline/datasets/world.py", *HANDS}
"""What stand-ins are rendered with: data set modules import it for their writers."""
DRAWS_PEOPLE = {
    "pipeline/bodies",
    "pipeline/motions",
    *(f"pipeline/rendering/{name}.py" for name in ("clothes", "light", "renderer", "scene")),
}

CODE: dict[str, tuple[list[str], set[str]]] = {
    # stage: (modules that compute it, more that are harmless here)
    # Open bodies are no pickles.
    "bodies": (["pipeline.bodies.__main__"], {"pipeline/pickles.py"}),
    "motions": (["pipeline.motions.__main__"], {"pipeline/pickles.py"}),
    # Nobody is rendered in a background, and no file of real data is read.
    "standin_backgrounds": (
        ["pipeline.datasets.standin", "pipeline.datasets.coco"],
        {*WORLD, "pipeline/frames.py", "pipeline/datasets/quarantine.py"},
    ),
    "standin": (
        ["pipeline.datasets.standin", "pipeline.datasets.{module}"],
        {*HANDS, "pipeline/datasets/quarantine.py", "pipeline/pickles.py"},
    ),
    "standin_hand": (
        ["pipeline.datasets.standin", "pipeline.datasets.{module}"],
        {"pipeline/datasets/quarantine.py", "pipeline/pickles.py"},
    ),
    "index_hand": (["pipeline.datasets.index", "pipeline.datasets.{module}"], WORLD),
    # Nobody is rendered in a room, and no photograph is behind it.
    "standin_static": (
        ["pipeline.datasets.standin", "pipeline.datasets.{module}"],
        {*HANDS, *DRAWS_PEOPLE, "pipeline/frames.py", "pipeline/datasets/quarantine.py", "pipeline/datasets/coco.py"},
    ),
    "standin_looks": (
        ["pipeline.datasets.standin", "pipeline.datasets.{module}"],
        {*HANDS, "pipeline/datasets/quarantine.py", "pipeline/pickles.py"},
    ),
    "index_looks": (
        ["pipeline.datasets.index", "pipeline.datasets.{module}"],
        {*WORLD, "pipeline/datasets/keypoints.py"},
    ),
    # Silhouettes are rendered, too.
    "parse_looks": (["pipeline.parsing"], {"models"}),
    "pair_looks": (["pipeline.pairs.selection"], {"models"}),
    "index_static": (["pipeline.datasets.index", "pipeline.datasets.{module}"], WORLD),
    "parse_static": (["pipeline.parsing"], {"models"}),
    "pair_static": (["pipeline.pairs.selection"], {"models"}),
    # The dataset has no silhouettes, so nothing is parsed.
    "parse_hand": (["pipeline.parsing"], {"models"}),
    "pair_hand": (["pipeline.pairs.selection"], {"models"}),
    "index": (["pipeline.datasets.index", "pipeline.datasets.{module}"], {*WORLD, "pipeline/datasets/keypoints.py"}),
    "train_parser": (
        ["pipeline.training.parser", "pipeline.datasets.synthetic"],
        {*WORLD, "pipeline/datasets/quarantine.py"},
    ),
    "parse": (["pipeline.parsing"], set()),
    # Nothing is parsed there: masks are stored ones.
    "pair": (["pipeline.pairs.selection"], {"models"}),
    "import_weights": (["pipeline.weights"], set()),
    # The network is that of the initial checkpoint.
    "pretrain": (["pipeline.training.pretrain"], {"models/catalog.py"}),
    "pretrain_ablation": (["pipeline.training.pretrain"], {"models/catalog.py"}),
    # With a fresh decoder it is not.
    "pretrain_study": (["pipeline.training.pretrain"], set()),
    "pretrain_keypoints": (["pipeline.training.pretrain"], {"models/catalog.py"}),
    "finetune_body_mesh": (["pipeline.tasks.body_mesh"], set()),
    "finetune_body_mesh_ablation": (["pipeline.tasks.body_mesh"], set()),
    "finetune_body_mesh_labels": (["pipeline.tasks.body_mesh"], set()),
    "finetune_body_mesh_on_the_way": (["pipeline.tasks.body_mesh"], set()),
    "report": (["pipeline.reporting.__main__"], {"models"}),
}


STUDY_DATASETS = run_spec.load(PROJECT / "params.yaml").study_datasets


def stages() -> dict[str, dict[str, Any]]:
    files = [PROJECT / "dvc.yaml", PROJECT / "tables/dvc.yaml"]
    return {name: stage for file in files for name, stage in yaml.safe_load(file.read_text())["stages"].items()}


def source(module: str) -> Path | None:
    """File of a module of ours."""
    path = PROJECT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(node: ast.AST) -> Iterator[str]:
    """Modules that code imports anywhere in it, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{name.name}" for name in child.names)
        else:
            yield from imported(child)


@cache
def read(file: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether there is more than a docstring in a file, and what it imports."""
    tree = ast.parse(file.read_text())
    return len(tree.body) > 1, tuple(imported(tree))


def among(file: str, paths: set[str]) -> bool:
    return any(file == path or file.startswith(f"{path}/") for path in paths)


def forgotten(modules: list[str], deps: set[str], harmless: set[str]) -> set[str]:
    """Files behind `modules` that are neither dependencies nor harmless."""
    found, seen, waiting = set(), set(), list(modules)
    while waiting:
        module = waiting.pop()
        file = source(module)
        if file is None or file in seen:
            continue
        seen.add(file)
        name = file.relative_to(PROJECT).as_posix()
        has_code, imports = read(file)
        if has_code and not among(name, deps):
            if among(name, harmless):
                continue
            found.add(name)
        waiting += imports
    return found


def cases() -> Iterator[Any]:
    for name, (modules, harmless) in CODE.items():
        stage = stages()[name]
        each: Any = [None]
        if name.startswith(("standin", "index")) and "foreach" in stage:
            each = stage["foreach"]
            each = list(STUDY_DATASETS if each == "${study_datasets}" else each.values())
        for item in each:
            module = item["module"] if isinstance(item, dict) else item
            named = {dep.replace("${item}", str(item)).replace("${item.module}", str(module)) for dep in body(stage)}
            entries = [entry.format(module=module) for entry in modules]
            yield pytest.param(entries, named, harmless, id=f"{name}-{module}" if item else name)


def body(stage: dict[str, Any]) -> list[str]:
    deps: list[str] = stage.get("do", stage)["deps"]
    return deps


def test_every_stage_is_looked_at() -> None:
    assert set(CODE) == set(stages())


@pytest.mark.parametrize(("modules", "deps", "harmless"), list(cases()))
def test_a_stage_depends_on_all_code_that_makes_its_result(
    modules: list[str], deps: set[str], harmless: set[str]
) -> None:
    assert all(source(module) for module in modules)
    assert not forgotten(modules, deps, harmless | set(HARMLESS))


@pytest.mark.parametrize("name", CODE)
def test_the_code_looked_at_is_what_the_stage_runs(name: str) -> None:
    stage = stages()[name]
    ran, (computes, *_) = stage.get("do", stage)["cmd"].split()[2], CODE[name][0]
    file = source(ran)
    assert file is not None
    assert computes in (ran, f"{ran}.__main__", *read(file)[1])


def test_what_is_left_out_of_the_dependencies_is_found() -> None:
    modules, harmless = CODE["pretrain"]
    deps = set(body(stages()["pretrain"]))
    assert forgotten(modules, deps - {"models/masking.py"}, harmless | set(HARMLESS)) == {"models/masking.py"}


@pytest.mark.parametrize(
    ("module", "code", "hashed"),
    [
        (pretrain, pretrain.CODE, set()),
        (body_mesh, body_mesh.CODE, {"pipeline/frames.py", "pipeline/datasets"}),
        (parser, parser.CODE, {"pipeline/frames.py", "pipeline/datasets"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else "",
)
def test_an_unfinished_training_knows_all_code_that_decides_how_it_ends(
    module: ModuleType, code: tuple[str, ...], hashed: set[str]
) -> None:
    """Data is known by its content."""
    known = set(code_fingerprints(*code))
    assert not forgotten([module.__name__], known, {*HARMLESS, *hashed})
    assert not known & set(HARMLESS)


def test_what_is_harmless_exists() -> None:
    named = {*HARMLESS, *(path for _, harmless in CODE.values() for path in harmless)}
    assert [path for path in named if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("stage", ["pretrain", "finetune_body_mesh"])
def test_an_ablation_depends_on_what_the_headline_runs_depend_on(stage: str) -> None:
    assert body(stages()[f"{stage}_ablation"]) == body(stages()[stage])
