"""params.yaml is checked before anything runs; the message says which key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline import run_spec
from pipeline.run_spec import ParamsError

ROOT = Path(__file__).resolve().parents[2]


def changed(tmp_path: Path, *path: str, value: object) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    section = content
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    target = tmp_path / "params.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


def test_the_file_of_the_project_is_valid():
    assert run_spec.load(ROOT / "params.yaml").scale == "mini"


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("pretrain", "croco_body", "mask_ration"), 0.7, r"pretrain.croco_body.mask_ration: unknown parameter"),
        (("pretrain", "croco_body", "mask_ratio"), 1.5, r"pretrain.croco_body.mask_ratio: Input should be less than 1"),
        (("pretrain", "croco_body", "init"), "nobody", r"pretrain.croco_body.init: 'nobody' is not one of"),
        (("pretrain", "croco_body", "datasets"), {"nowhere": 1.0}, r"'nowhere' is not one of"),
        (("body_mesh", "inits"), ["croco_boby"], r"body_mesh.inits: 'croco_boby' is not one of"),
        (("body_mesh", "seeds"), [], "inits and seeds must each name at least one entry"),
        (("body_mesh", "optimizer", "weight_decay"), 0.05, r"body_mesh.optimizer.muon.weight_decay: unknown parameter"),
        (("body_mesh", "optimizer", "name"), "sgd", r"body_mesh.optimizer: .*'adamw', 'muon'"),
        (
            ("pretrain", "croco_body", "optimizer"),
            {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75},
            r"pretrain.croco_body: .*layer_decay is for fine-tuning",
        ),
        (("scale",), "../elsewhere", "String should match pattern"),
        (("crops", "size"), "big", r"crops.size: .*\(found 'big'\)"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(tmp_path, path, value, message):
    with pytest.raises(ParamsError, match=message):
        run_spec.load(changed(tmp_path, *path, value=value))


def test_a_missing_or_broken_file_is_a_clear_error(tmp_path):
    with pytest.raises(ParamsError, match="no such params file; run from the project root"):
        run_spec.load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ParamsError, match="not valid YAML"):
        run_spec.load(tmp_path / "broken.yaml")


def test_fingerprints_follow_values_and_nothing_else():
    params = run_spec.load(ROOT / "params.yaml")
    again = run_spec.load(ROOT / "params.yaml")
    run = params.pretrain["croco_body"]
    assert run_spec.fingerprint(run, "x") == run_spec.fingerprint(again.pretrain["croco_body"], "x")
    assert run_spec.fingerprint(run, "x") != run_spec.fingerprint(run.model_copy(update={"seed": 9}), "x")
    assert run_spec.fingerprint(run, "x") != run_spec.fingerprint(run, "y")
