"""Pre-training from pairs to checkpoint, metrics and pictures; and through a kill."""

from __future__ import annotations

import json
import logging
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models import checkpoints
from pipeline import run_spec
from pipeline.layout import PROJECT, Layout
from pipeline.process import plain_errors
from pipeline.reporting.metric_table import read_file, read_history
from pipeline.run_spec import ParamsError
from pipeline.training import pretrain as pretrain_module
from pipeline.training.checkpoint import TrainingError, save_state
from pipeline.training.completion import black_like, plain, to_uint8
from pipeline.training.pretrain import initial_model, pretrain
from pipeline.training.provenance import folder_fingerprint
from pipeline.training.team import Team
from pipeline.weights import import_weights
from tests.pipeline.toy_world import small_params, write_pool
from tests.pipeline.training.programs import Program, end, start_team, wait_for

RUNS = ("croco_body", "mae_body")
LOSS_TOLERANCE = 1e-4
"""Of losses of the same run in another order of additions, after a dozen steps of Muon."""
STEPS = 12
SMALL = {
    f"pretrain__{run}__{key}": value
    for run in RUNS
    for key, value in {
        "steps": STEPS, "warmup_steps": 2, "batch": 8, "checkpoint_every": 3, "heldout": 0.2, "precision": "fp32",
        "snapshots": (4, 8), "datasets": {"synthetic": 2.0, "aist": 1.0},
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_pool(layout, "synthetic", 16)
    write_pool(layout, "aist", 8, ("view", "pose"), masks=False)
    params, _ = small_params(layout.root, **SMALL)
    for name in ("random", "random_mae"):
        import_weights(name, layout, params.import_weights[name])
    return layout


@pytest.mark.parametrize("run", ["croco_hand", "mae_hand"])
def test_hands_are_learned_from_their_own_pool_without_silhouettes(layout: Layout, run: str) -> None:
    small = {"steps": 4, "warmup_steps": 1, "batch": 8, "heldout": 0.2, "precision": "fp32"}
    params, _ = small_params(layout.root, **{f"pretrain__{run}__{key}": value for key, value in small.items()})
    write_pool(layout, "interhand", 12, ("view", "pose"), masks=False, pool="hand")
    pretrain(run, params, layout)
    values = read_file(layout.metrics("pretrain", run), "test").values
    assert values["heldout_loss"].value > 0
    assert not [name for name in values if name.endswith("_human")]
    assert read_history(layout.history("pretrain", run))[0].keys() == {"step", "lr", "loss"}


def test_a_run_whose_data_is_not_read_yet_says_what_it_waits_for(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    with pytest.raises(ParamsError, match="croco_hand_varied waits for dexycb, ho3d, hanco, which this version"):
        pretrain("croco_hand_varied", params, layout)


def test_a_batch_that_the_processes_can_not_share_is_refused_by_each_before_it_waits_for_another(
    layout: Layout,
) -> None:
    params, _ = small_params(layout.root, **SMALL, pretrain__croco_body__accumulate=2)
    for rank in range(3):
        with pytest.raises(
            ValueError, match=r"a batch of 8 .* 6 equal parts.*fewer GPUs: CUDA_VISIBLE_DEVICES=0,1,2,3"
        ):
            pretrain("croco_body", params, layout, Team(rank, 3))
    assert not unfinished(layout)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_leaves_checkpoint_history_metrics_and_pictures(layout: Layout, run: str) -> None:
    params, _ = small_params(layout.root, **SMALL)
    pretrain(run, params, layout)
    metrics = read_file(layout.metrics("pretrain", run), "test")
    assert metrics.checkpoint is not None
    assert metrics.checkpoint.sha256 == checkpoints.fingerprint(layout.checkpoint(run))
    assert metrics.values["heldout_loss"].n
    if run == "croco_body":
        losses = metrics.values["heldout_loss_other_reference"].value, metrics.values["heldout_loss"].value
        of_all = [item for item in metrics.reference_saves if (item.against, item.patches) == ("other", "hidden")]
        assert {item.kind for item in of_all} == {"view", "pose"}
        low, high = sorted(item.saves for item in of_all)
        assert low <= losses[0] - losses[1] <= high
        assert all((item.standard_error is None) == (item.recordings == 1) for item in of_all)
    else:
        assert metrics.reference_saves == ()
    history = read_history(layout.history("pretrain", run))
    assert [line["step"] for line in history] == list(range(1, STEPS + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    start = checkpoints.load_pretrained(layout.checkpoint(params.pretrain[run].init)).state_dict()
    trained = checkpoints.load_pretrained(layout.checkpoint(run)).state_dict()
    assert not torch.equal(start["patch_embed.proj.weight"], trained["patch_embed.proj.weight"])
    provenance = json.loads((layout.checkpoint(run) / "provenance.json").read_text())
    assert provenance["init"] == params.pretrain[run].init
    assert provenance["seed"] == 0
    snapshots = {step: checkpoints.fingerprint(layout.checkpoint(f"{run}@{step}")) for step in (4, 8)}
    assert metrics.snapshots == {str(step): digest for step, digest in snapshots.items()}
    assert len({metrics.checkpoint.sha256, *snapshots.values()}) == 3
    on_the_way = json.loads((layout.checkpoint(f"{run}@8") / "provenance.json").read_text())
    assert on_the_way == provenance | {"steps": 8}
    assert f"# {run} after 8 of {STEPS} steps, scale test" in (layout.checkpoint(f"{run}@8") / "README.md").read_text()
    card = (layout.checkpoint(run) / "README.md").read_text()
    assert f"# {run}, scale test" in card
    assert f"heldout_loss | {metrics.values['heldout_loss'].value:.4f}" in card
    for value in provenance["inputs"].values():
        assert f"`{value}`" in card
    speed = json.loads(layout.metrics("pretrain", run).read_text())["speed"]
    assert speed["samples_per_second"] > 0
    previews = sorted(layout.pictures("pretrain", run).glob("training_*.png"))
    assert [path.stem for path in previews] == [f"training_{step:09d}" for step in (2, 5, 7, 10)]
    assert Image.open(previews[0]).size == ((512, 384) if run == "croco_body" else (384, 384))
    assert len({path.read_bytes() for path in previews}) == 4
    (picture, *_) = sorted(layout.pictures("pretrain", run).glob("completion_*.png"))
    assert Image.open(picture).size == ((512, 256) if run == "croco_body" else (384, 128))
    known = json.loads(layout.metrics("pretrain", run).read_text())["pictures"]["fingerprint"]
    assert known == folder_fingerprint(picture.parent)
    picture.write_bytes(picture.read_bytes() + b"another picture")
    assert known != folder_fingerprint(picture.parent)
    assert not unfinished(layout)


def test_the_command_for_several_machines_reaches_the_training(layout: Layout, tmp_path: Path) -> None:
    (line,) = (line.strip() for line in (pretrain_module.__doc__ or "").splitlines() if "torchrun --" in line)
    _, path = small_params(tmp_path, **SMALL)
    command = line.replace("params.yaml", str(path)).replace("croco_body", "nothing").split()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command[1:]],
        cwd=PROJECT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("pretrain nothing: no run 'nothing' is declared") == 2


def unfinished(layout: Layout, what: str = "") -> list[Path]:
    """Folders of runs that are not at their end, or what lies in them."""
    scratch = layout.scratch("pretrain", "*")
    return list(scratch.parent.glob(scratch.name + what))


Project = tuple[Layout, Path]


def sibling(layout: Layout, root: Path, **changes: object) -> Project:
    """Another project with the same inputs, so that neither finds the other's scratch; and its params file."""
    data = root / "data" / "test"
    (data / "checkpoints").mkdir(parents=True)
    for name in ("pairs", "crops", "checkpoints/random", "checkpoints/random_mae"):
        (data / name).symlink_to(layout.data / name)
    _, path = small_params(root, **SMALL | changes)
    return Layout("test", root), path


def run_here(project: Project, run: str) -> None:
    here, path = project
    pretrain(run, run_spec.load(path), here)


def start_processes(size: int, project: Project, run: str) -> list[Program]:
    here, path = project
    return start_team(size, "pretrain", path, here.root, run)


def run_to_the_end(size: int, project: Project, run: str) -> list[str]:
    """By one process, which is this one, or by several; what those have said."""
    if size == 1:
        run_here(project, run)
        return []
    codes, errors = end(start_processes(size, project, run))
    assert codes == [0] * size, errors
    return errors


@contextmanager
def after_each_state(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> Iterator[None]:
    """Something happens to this process whenever a run in it has saved a state."""

    def save(*arguments: Any) -> Path:
        path = save_state(*arguments)
        happen()
        return path

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.loop.save_state", save)
        yield


@pytest.fixture(scope="module")
def undisturbed(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Projects in which a run has come to its end, by so many processes."""

    @cache
    def project(run: str, size: int = 1, precision: str = "fp32") -> Project:
        root = tmp_path_factory.mktemp("undisturbed")
        found = sibling(layout, root, **{f"pretrain__{run}__precision": precision})
        run_to_the_end(size, found, run)
        return found

    return project


def losses(project: Project, run: str) -> list[float]:
    return [line["loss"] for line in read_history(project[0].history("pretrain", run))]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "precision"), [(1, "bf16"), (2, "fp32")])
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    layout: Layout, tmp_path: Path, undisturbed, caplog: pytest.LogCaptureFixture, size: int, precision: str
) -> None:
    killed = sibling(layout, tmp_path, pretrain__croco_body__precision=precision)
    processes = start_processes(size, killed, "croco_body")
    wait_for(lambda: unfinished(killed[0], "/step-*.pt"))
    for process in processes:
        assert process.runs(), "ended before it could be killed"
        process.kill()
    end(processes)
    caplog.set_level(logging.INFO)
    said = run_to_the_end(size, killed, "croco_body")
    assert "going on from step" in "".join([caplog.text, *said])
    results = [
        {
            path.relative_to(here.data): path.read_bytes()
            for folder in (here.checkpoint("croco_body"), here.pictures("pretrain", "croco_body"))
            for path in folder.rglob("*")
            if path.is_file()
        }
        for here, _ in (undisturbed("croco_body", size, precision), killed)
    ]
    assert [path.name for path in results[0]].count("model.safetensors") == 3  # two of them on the way
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_line_and_the_same_command_goes_on(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"checkpoint_every": 6, "snapshots": (11,), "num_previews": 0}
    project = sibling(layout, tmp_path, **{f"pretrain__croco_body__{key}": value for key, value in changes.items()})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    as_if_100_kb_were_left = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            after_each_state(monkeypatch, as_if_100_kb_were_left),
            pytest.raises(SystemExit) as ended,
            plain_errors("pretrain"),
        ):
            run_here(project, "croco_body")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(r"pretrain: .*File too large: '.*snapshots.*model\.safetensors'", str(ended.value))
    caplog.set_level(logging.INFO)
    run_here(project, "croco_body")
    assert "going on from step 6" in caplog.text
    assert len(losses(project, "croco_body")) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_processes_have_the_loss_curve_of_one(undisturbed, run: str) -> None:
    assert losses(undisturbed(run, size=2), run) == pytest.approx(losses(undisturbed(run), run), rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("run", RUNS)
def test_micro_batches_have_the_loss_curve_of_the_whole_batch(
    layout: Layout, tmp_path: Path, undisturbed, run: str
) -> None:
    parts = sibling(layout, tmp_path, **{f"pretrain__{run}__accumulate": 4})
    run_here(parts, run)
    assert losses(parts, run) == pytest.approx(losses(undisturbed(run), run), rel=LOSS_TOLERANCE)


def test_an_average_of_the_weights_is_another_checkpoint_of_the_same_training(
    layout: Layout, tmp_path: Path, undisturbed
) -> None:
    last, mean = undisturbed("croco_body"), sibling(layout, tmp_path, pretrain__croco_body__ema=0.9)
    run_here(mean, "croco_body")
    assert losses(mean, "croco_body") == losses(last, "croco_body")
    for name in ("croco_body", "croco_body@8"):
        assert len({checkpoints.fingerprint(here.checkpoint(name)) for here, _ in (last, mean)}) == 2


def test_a_run_changed_in_mid_course_is_refused_but_for_what_leaves_its_result_alone(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here, path = sibling(layout, tmp_path, pretrain__croco_body__steps=24)
    with after_each_state(monkeypatch, partial(signal.raise_signal, signal.SIGTERM)), pytest.raises(SystemExit):
        run_here((here, path), "croco_body")

    def change(**changes: object) -> None:
        small_params(here.root, **SMALL | {"pretrain__croco_body__steps": 24} | changes)

    change(pretrain__croco_body__mask_ratio=0.8)
    with pytest.raises(TrainingError, match=r"mask_ratio was 0\.75, is 0\.8 now") as refused:
        run_here((here, path), "croco_body")
    assert str(refused.value).count("\n") == 3  # what, where, the one difference, the ways out
    change(pretrain__croco_body__num_previews=1, pretrain__croco_body__checkpoint_every=4)
    run_here((here, path), "croco_body")
    assert "going on from step" in caplog.text
    previews = here.pictures("pretrain", "croco_body").glob("training_*.png")
    assert [preview.stem for preview in previews] == ["training_000000012"]


def test_a_network_that_is_not_the_initial_weights_is_refused_by_name(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL, pretrain__croco_body__init="random_mae")
    with pytest.raises(
        ParamsError, match=r"croco_body: init 'random_mae' is no croco_mini_patch8_64: it has no enc_pos"
    ):
        pretrain("croco_body", params, layout)


def test_a_fresh_decoder_may_have_another_size_than_the_initial_weights(layout: Layout) -> None:
    wide = {"pretrain__croco_body__network": "croco_mini_widedecoder_patch8_64"}
    params, _ = small_params(layout.root, **SMALL, **wide)
    shapes = r"mask_token has shape \(1, 1, 64\) there and \(1, 1, 128\) here; dec_embed_dim is 64"
    said = rf"is no croco_mini_widedecoder_patch8_64: {shapes} .*`fresh_decoder: true` will do"
    with pytest.raises(ParamsError, match=said):
        initial_model("croco_body", params, layout)
    params, _ = small_params(layout.root, **SMALL, **wide, pretrain__croco_body__fresh_decoder=True)
    model = initial_model("croco_body", params, layout)
    assert model.config["dec_embed_dim"] == 128
    start = checkpoints.load_pretrained(layout.checkpoint("random")).state_dict()
    shared = [name for name in start if name.startswith(("enc_", "patch_embed"))]
    assert len(shared) > 40
    assert all(torch.equal(model.state_dict()[name], start[name]) for name in shared)


@pytest.mark.parametrize(("method", "head"), [("croco", "prediction_head."), ("mae", "decoder_pred.")])
def test_the_last_layer_starts_anew_where_it_predicted_another_kind_of_patches(
    layout: Layout, tmp_path: Path, method: str, head: str
) -> None:
    """Published weights predict normalised patches; random ones nothing."""
    here, _ = sibling(layout, tmp_path)
    run, random = f"{method}_body", {"croco": "random", "mae": "random_mae"}[method]
    path = here.raw("weights") / "published"
    shutil.copytree(here.checkpoint(random), path)
    shutil.copytree(here.checkpoint(random), here.checkpoint("published"))
    base, _ = small_params(here.root, **SMALL)
    imported = base.import_weights[random].model_dump() | {"source": "published"}

    def started(init: str, **changes: object) -> set[str]:
        """Names of what is not as in the initial weights."""
        params, _ = small_params(
            here.root,
            **SMALL,
            **{f"pretrain__{run}__init": init, "import_weights__published": imported, f"pretrain__{run}__seed": 1},
            **{f"pretrain__{run}__{key}": value for key, value in changes.items()},
        )
        model = initial_model(run, params, here).state_dict()
        start = checkpoints.load(here.checkpoint(init)).state_dict()
        return {name for name, value in model.items() if not torch.equal(value, start[name])}

    assert started("published", normalize=True) == set()
    assert started("published", normalize=False) == {f"{head}weight"}  # its bias is zero, there as here
    assert started(random, normalize=False) == set()
    # What this project has trained, and somebody took over as a file, says which kind it predicts.
    (here.checkpoint("published") / "provenance.json").write_text(json.dumps({"normalize": False}))
    assert started("published", normalize=False) == set()
    assert started("published", normalize=True) == {f"{head}weight"}


def test_a_fresh_decoder_is_another_than_that_of_the_initial_weights(layout: Layout) -> None:
    changes = {"pretrain__croco_body__fresh_decoder": True, "pretrain__croco_body__seed": 1}
    params, _ = small_params(layout.root, **SMALL, **changes)
    model = initial_model("croco_body", params, layout).state_dict()
    start = checkpoints.load_pretrained(layout.checkpoint("random")).state_dict()
    name = "dec_blocks.0.attn.qkv.weight"
    assert not torch.equal(model[name], start[name])
    assert torch.equal(model["enc_blocks.0.attn.qkv.weight"], start["enc_blocks.0.attn.qkv.weight"])


def test_an_unknown_run_names_the_known_ones(layout: Layout) -> None:
    params, _ = small_params(layout.root)
    with pytest.raises(ParamsError, match="croco_body"):
        pretrain("nothing", params, layout)


def test_black_is_black_to_the_eye() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    assert (to_uint8(plain(images)) == images.numpy()).all()
    assert (to_uint8(black_like(plain(images))) == 0).all()
