"""params.yaml is checked before anything runs; the message says which key and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline import run_spec
from pipeline.run_spec import SAFE_LOADER, ParamsError

ROOT = Path(__file__).resolve().parents[2]


def changed(tmp_path: Path, *path: str, value: object) -> Path:
    content = yaml.load((ROOT / "params.yaml").read_text(), SAFE_LOADER)
    section = content
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    target = tmp_path / "params.yaml"
    target.write_text(json.dumps(content))  # JSON is YAML
    return target


def test_the_file_of_the_project_is_valid():
    assert run_spec.load(ROOT / "params.yaml").scale == "mini"


def test_runs_of_the_study_are_runs_as_all_others(tmp_path):
    params = run_spec.load(ROOT / "params.yaml")
    assert params.study[0] == "study"
    assert set(params.study) < set(params.pretrain)
    with pytest.raises(ParamsError, match=r"\['croco_body'\] stand under study and elsewhere as well"):
        run_spec.load(changed(tmp_path, "study", "croco_body", value={}))


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("pretrain", "croco_body", "mask_ration"), 0.7, r"pretrain.croco_body.mask_ration: unknown parameter"),
        (("pretrain", "croco_body", "mask_ratio"), 1.5, r"pretrain.croco_body.mask_ratio: Input should be less than 1"),
        (
            ("pretrain", "croco_body", "network"),
            "croco_nini_patch8_64",
            r"pretrain.croco_body.network: .*no network of method croco; there are croco_mini_patch8_64, .*'croco_nini",
        ),
        (
            ("pretrain", "mae_body", "network"),
            "croco_mini_patch8_64",
            r"pretrain.mae_body.network: .*no network of method mae; there are mae_mini_patch8_64, ",
        ),
        (
            ("keypoints", "keypoints_body", "network"),
            "mae_mini_patch8_64",
            r"pretrain.keypoints_body.network: .*no network of method keypoints; there are croco_mini_patch8_64, ",
        ),
        (
            ("import_weights", "random_mae", "network"),
            "vit_base",
            r"import_weights.random_mae.network: .*no network of method mae; there are mae_mini_patch8_64, ",
        ),
        (
            ("pretrain", "mae_body", "patch_weights"),
            {"background": 0.5},
            r"pretrain.mae_body.patch_weights: .*method mae takes no note of the person; give human and background",
        ),
        (
            ("pretrain", "croco_body", "patch_weights"),
            {"human": 0, "background": 0, "visible": 1},
            r"pretrain.croco_body.patch_weights: .*there is nothing hidden to predict",
        ),
        (
            ("pretrain", "mae_body", "masking"),
            "human",
            r"pretrain.mae_body.masking: .*method mae hides patches uniformly; set masking: uniform",
        ),
        (("pretrain", "croco_body", "method"), "coco", r"1 wrong value.*\n  pretrain.croco_body.method: Input should"),
        (("pretrain", "croco_body", "init"), "nobody", r"pretrain.croco_body.init: 'nobody' is not one of"),
        (
            ("ablations", "croco", "init"),
            "croco_body_from_croco",
            r"init: croco <- croco_body_from_croco <- croco never begins",
        ),
        (("study_datasets",), ["nowhere"], r"study_datasets: \['nowhere'\] are none of"),
        (("pretrain", "croco_body", "datasets"), {"nowhere": 1.0}, r"'nowhere' is not one of"),
        (("pretrain", "croco_body", "without"), {"nowhere": ["view"]}, r"without: \['nowhere'\] are none of"),
        (("ablations", "croco_hand", "datasets"), {"humbi": 1.0}, r"humbi is of pool body, the run of hand"),
        (("ablations", "croco_hand", "masking"), "human", r"masking is human, but interhand has no silhouettes; give"),
        (("awaiting", "croco_hand_varied", "datasets"), {"interhand": 1.0}, r"all of its datasets are there; move it"),
        (("keypoints", "croco_body"), {}, r"\['croco_body'\] stand under keypoints and elsewhere as well"),
        (
            ("finetune", "body_mesh", "headline"),
            ["croco_boby"],
            r"finetune.body_mesh.headline: 'croco_boby' is not one of",
        ),
        (
            ("pretrain", "croco_body", "warmup_steps"),
            -1,
            r"croco_body.warmup_steps: .*must be at least 0 and below `ste",
        ),
        (("pretrain", "croco_body", "warmup_steps"), 10**6, r"croco_body.warmup_steps: .*at least 0 and below `steps`"),
        (
            ("body_mesh", "warmup_steps"),
            10**6,
            r"body_mesh.warmup_steps: .*at least 0 and below `steps`.*found 1000000",
        ),
        (("body_mesh", "steps"), 0, r"1 wrong value.*\n  body_mesh.steps: Input should be greater than 0"),
        (("pairs", "max_gap_s"), 0.1, r"pairs: .*no gap lies between min_gap_s 0.1 and max_gap_s 0.1"),
        (
            ("pretrain", "croco_body", "baseline_degrees"),
            [45, 5],
            r"baseline_degrees: .*nothing lies from 45 on and below",
        ),
        (("pretrain", "croco_body", "gap_s"), [2, 2], r"croco_body.gap_s: .*nothing lies from 2 on and below 2"),
        (("body_mesh", "seeds"), [], r"body_mesh.seeds: .*at least 1 item"),
        (("body_mesh", "seeds"), [0, 1, 0], r"body_mesh.seeds: .*seeds \[0\] stand there more than once"),
        (("body_mesh", "train_dataset"), "coco_part", r"body_mesh.train_dataset: 'coco_part' is not one of"),
        (("body_mesh", "loss_vertices"), 1.0, r"body_mesh.loss_vertices: .*less than or equal to 0"),
        (("body_mesh", "optimizer", "weight_decay"), 0.05, r"body_mesh.optimizer.muon.weight_decay: unknown parameter"),
        (("body_mesh", "optimizer", "name"), "sgd", r"body_mesh.optimizer: .*'adamw', 'muon'"),
        (
            ("pretrain", "croco_body", "optimizer"),
            {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75},
            r"pretrain.croco_body: .*layer_decay is for fine-tuning",
        ),
        (("ablations", "croco_0.9"), {}, r"pretrain.croco_0.9.* letters of English, digits, _ and - .*'croco_0.9'"),
        (("import_weights", "mae@100"), {}, r"import_weights.mae@100.* letters of English, digits, _ and - "),
        (("datasets", "../humbi"), {}, r"datasets.../humbi.* letters of English, digits, _ and - "),
        (("scale",), "../elsewhere", "String should match pattern"),
        (("crops", "size"), "big", r"crops.size: .*\(found 'big'\)"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(tmp_path, path, value, message):
    with pytest.raises(ParamsError, match=message):
        run_spec.load(changed(tmp_path, *path, value=value))


def test_an_unknown_data_set_is_answered_with_those_of_the_file():
    params = run_spec.load(ROOT / "scales/gpu/params.yaml")
    assert params.dataset("aist").pool == "body"
    with pytest.raises(ValueError, match=r"^scales/gpu/params.yaml has no data set 'aits'; it has coco, humbi, aist"):
        params.dataset("aits")


@pytest.mark.parametrize(
    ("file", "headline", "further"),
    [
        ("params.yaml", "dvc repro", "make tables"),
        ("scales/gpu/params.yaml", "dvc repro scales/gpu/dvc.yaml", "make tables SCALE=gpu"),
    ],
)
def test_what_is_missing_is_made_at_its_own_scale(file, headline, further):
    params = run_spec.load(ROOT / file)
    assert (params.command(), params.command("croco_body"), params.command("croco_body_uniform")) == (
        headline,
        headline,
        further,
    )


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


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("scales/*/params.yaml"))], ids=str)
def test_runs_whose_data_is_not_read_yet_are_declared_and_say_what_they_wait_for(path):
    params = run_spec.load(path)
    assert params.waits_for("croco_hand_varied") == ("dexycb", "ho3d", "hanco")
    assert params.waits_for("croco_hand") == params.waits_for("nobody") == ()
    assert "croco_hand_varied" not in params.pretrain


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("scales/*/params.yaml"))], ids=str)
def test_croco_learns_from_views_of_static_scenes_where_its_released_weights_do_not_fit(path):
    params = run_spec.load(path)
    if "croco" in params.import_weights:
        assert params.import_weights["croco"].source == "CroCo.pth"
        return
    run = params.pretrain["croco"]
    assert (run.pool, run.kinds, run.masking, run.mask_ratio, run.init) == (
        "static", {"view": 1.0}, "uniform", 0.9, "random",
    )  # fmt: skip
    for name, other in (("croco_body_from_croco", "croco_body"), ("croco_hand_from_croco", "croco_hand")):
        same = params.pretrain[other].model_copy(update={"init": "croco", "snapshots": ()})
        assert params.pretrain[name].model_dump() == same.model_dump()


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("scales/*/params.yaml"))], ids=str)
def test_an_image_without_people_is_its_own_crop(path):
    params = run_spec.load(path)
    assert params.crop_scale("habitat") == 1.0
    assert params.crop_scale("humbi") == params.crop_scale("interhand") == params.crops.scale > 1


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("scales/*/params.yaml"))], ids=str)
def test_croco_hand_draws_both_kinds_alike_and_its_ablations_one_each(path):
    runs = run_spec.load(path).pretrain
    assert runs["croco_hand"].kinds == {"view": 1.0, "pose": 1.0}
    assert list(runs["croco_hand_view"].kinds) == ["view"]
    assert list(runs["croco_hand_pose"].kinds) == ["pose"]
    hands = [run for run in runs.values() if run.pool == "hand"]
    assert {run.masking for run in hands} == {"uniform"}
    assert len({(run.steps, run.batch, run.seed) for run in hands}) == 1
