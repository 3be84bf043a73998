"""Fine-tuning body mesh recovery from checkpoint to metrics, and its evaluation protocol."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models import checkpoints
from models.heads.iterative_regressor import BodyParameters, IterativeRegressor
from models.rotations import axis_angle_to_matrix, matrix_to_rotation_6d
from pipeline.bodies import SMPL_JOINT_NAMES
from pipeline.bodies import load as load_body
from pipeline.bodies.anatomy import LSP14_NAMES
from pipeline.layout import Layout
from pipeline.reporting.metric_table import read_file, read_history
from pipeline.run_spec import ParamsError
from pipeline.tasks.body_mesh import (
    BodyMeshNetwork,
    BodyMeshTask,
    MeanPose,
    body_mesh,
    build_network,
    evaluate,
    every_seed,
)
from pipeline.tasks.body_mesh import load_body as body_of
from pipeline.tasks.body_mesh_data import read_samples
from pipeline.tasks.skeleton import Skeleton
from pipeline.training.checkpoint import TrainingError, save_state
from pipeline.training.precision import arithmetic, full_float32
from pipeline.weights import import_weights
from tests.pipeline.toy_bodies import CORNERS, write_body, write_people
from tests.pipeline.toy_world import small_params

SMALL = {
    "body_mesh__steps": 8, "body_mesh__warmup_steps": 2, "body_mesh__batch": 8, "body_mesh__checkpoint_every": 3,
    "body_mesh__max_train": 20, "body_mesh__max_test": 12, "body_mesh__precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    layout.bodies.mkdir(parents=True)
    write_body(layout.smpl)
    write_people(layout, "coco_part_eft", "body_mesh", "train", 20, seed=0)
    write_people(layout, "3dpw", "body", "test", 16, seed=1)
    params, _ = small_params(layout.root)
    for name in ("random", "random_mae"):
        import_weights(name, layout, params.import_weights[name])
    return layout


@pytest.mark.parametrize("init", ["random", "random_mae"])
def test_a_run_leaves_checkpoint_history_metrics_and_pictures(
    layout: Layout, caplog: pytest.LogCaptureFixture, init: str
) -> None:
    params, _ = small_params(layout.root, **SMALL)
    caplog.set_level(logging.INFO)
    body_mesh(init, 3, params, layout)
    assert "samples_per_second" in caplog.text
    metrics = read_file(layout.metrics("body_mesh", f"{init}/3"), "test")
    assert metrics.init == init
    assert metrics.seed == 3
    assert set(metrics.values) == {"mpjpe", "pa_mpjpe", "mpvpe", "pa_mpvpe", "pa_mpjpe_of_mean_pose"}
    assert all(value.unit == "mm" and value.n == 12 and value.value > 0 for value in metrics.values.values())
    assert metrics.checkpoint is not None
    assert metrics.checkpoint.sha256 == checkpoints.fingerprint(layout.task_checkpoint("body_mesh", f"{init}/3"))
    assert len(read_history(layout.history("body_mesh", f"{init}/3"))) == 8
    pictures = layout.pictures("body_mesh", f"{init}/3")
    assert len(list(pictures.glob("*.png"))) == len(json.loads((pictures / "captions.json").read_text())) == 8


@pytest.mark.parametrize(
    ("find", "said"),
    [
        (lambda layout: layout.checkpoint("random"), "checkpoint; `dvc repro` makes those of the headline, `make"),
        (lambda layout: layout.records("3dpw"), "file; `dvc repro` or `make tables` makes it"),
        (lambda layout: layout.smpl, "file; `dvc repro` or `make tables` makes it"),
    ],
)
def test_what_is_missing_is_named_with_what_makes_it(layout: Layout, find: Callable[[Layout], Path], said: str) -> None:
    params, _ = small_params(layout.root, **SMALL)
    path = find(layout)
    away = path.rename(path.with_name("away"))
    try:
        with pytest.raises(FileNotFoundError, match=f"^{path}: no such {said}"):
            body_mesh("random", 3, params, layout)
    finally:
        away.rename(path)


def test_weights_that_are_not_declared_are_refused_with_those_that_are(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    with pytest.raises(ParamsError, match=r"no weights 'nothing' to start from are declared; there are random, .*mae"):
        body_mesh("nothing@6", 3, params, layout)


def test_weights_on_the_way_that_no_run_keeps_are_refused_with_those_that_are_kept(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    run = params.pretrain["croco_body"].model_copy(update={"snapshots": (5, 15)})
    params = params.model_copy(update={"pretrain": params.pretrain | {"croco_body": run}})
    for init in ("croco_body@6", "croco_body@"):
        with pytest.raises(ParamsError, match=r"no weights of croco_body after '6?' .*there are some after 5, 15$"):
            body_mesh(init, 3, params, layout)
    with pytest.raises(ParamsError, match=r"no weights of random after '3' steps are declared; it has no `snapshots`"):
        body_mesh("random@3", 3, params, layout)


def test_a_part_of_the_labels_is_spread_over_all_and_lies_apart(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    body_mesh("random", 3, params, layout, labels=0.25)
    path = layout.metrics("body_mesh_labels", "random/0.25/3")
    assert read_file(path, "test").labels == 0.25
    content = json.loads(path.read_text())
    assert content["num_train"] == 5
    assert content["command"].endswith("--init random --seed 3 --labels 0.25")
    skeleton = Skeleton(load_body(layout.smpl))
    files = layout.records("coco_part_eft"), layout.crops("body_mesh", "coco_part_eft")
    every, some = (read_samples(*files, "train", 20, skeleton, share=share).frame_ids for share in (1.0, 0.25))
    assert some == [every[place] for place in (0, 5, 10, 14, 19)]


def test_what_is_measured_already_is_measured_again_only_when_something_changed(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    written = [layout.metrics("body_mesh", "random/4"), layout.history("body_mesh", "random/4"),
               layout.task_checkpoint("body_mesh", "random/4") / "config.json"]  # fmt: skip
    body_mesh("random", 4, params, layout)
    times = [path.stat().st_mtime_ns for path in written]
    body_mesh("random", 4, params, layout)
    assert [path.stat().st_mtime_ns for path in written] == times
    other, _ = small_params(layout.root, **SMALL | {"body_mesh__steps": 9})
    (layout.pictures("body_mesh", "random/4") / "of_another_test_set.png").touch()
    body_mesh("random", 4, other, layout)
    assert all(path.stat().st_mtime_ns > time for path, time in zip(written, times, strict=True))
    assert len(list(layout.pictures("body_mesh", "random/4").glob("*.png"))) == 8
    next(layout.pictures("body_mesh", "random/4").glob("*.png")).unlink()
    body_mesh("random", 4, other, layout)
    assert len(list(layout.pictures("body_mesh", "random/4").glob("*.png"))) == 8


def test_a_run_changed_in_mid_course_is_refused_and_no_other(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    left = layout.scratch("body_mesh_labels", "random-0.5-6-0123456789abcdef")
    save_state(left, 3, {})
    with pytest.raises(TrainingError, match=f"rm -r {left}"):
        body_mesh("random", 6, params, layout, labels=0.5)
    body_mesh("random", 6, params, layout, labels=0.75)
    shutil.rmtree(left)


def test_runs_of_one_seed_share_head_and_batches_whatever_the_encoder(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    spec, skeleton = params.body_mesh, Skeleton(load_body(layout.smpl))
    samples = read_samples(
        layout.records("coco_part_eft"), layout.crops("body_mesh", "coco_part_eft"), "train", 20, skeleton
    )
    networks = [build_network(layout.checkpoint(name), samples.bodies, spec, 5) for name in ("random", "random_mae")]
    first, second = (network.head.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    tasks = [BodyMeshTask(network, samples, skeleton, spec, 5, torch.device("cpu")) for network in networks]
    batches = [[task.batch(step) for step in range(5)] for task in tasks]
    assert [batch.ids for batch in batches[0]] == [batch.ids for batch in batches[1]]
    assert torch.equal(batches[0][2].view.angle, batches[1][2].view.angle)
    other = BodyMeshTask(networks[0], samples, skeleton, spec, 6, torch.device("cpu"))
    assert other.batch(0).ids != batches[0][0].ids
    # 40 places of 20 samples: everyone twice.
    seen = [name for batch in batches[0] for name in batch.ids]
    assert sorted(seen) == sorted(2 * samples.frame_ids)


class Begun(Exception):
    """A training that goes no further than its arguments."""


def test_each_seed_has_a_head_batches_and_dropout_of_its_own(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    params, _ = small_params(layout.root, **SMALL)
    begun = []

    def begin(network: BodyMeshNetwork, task: BodyMeshTask, *_: object, seed: int, **__: object) -> None:
        begun.append((network.head.state_dict(), task.batch(0), seed))
        raise Begun

    monkeypatch.setattr("pipeline.tasks.body_mesh.train", begin)
    for seed in (0, 1):
        with pytest.raises(Begun):
            body_mesh("random", seed, params, layout)
    heads, batches, seeds = zip(*begun, strict=True)
    for name in ("fc1", "fc2", "decpose", "decshape", "deccam"):
        assert not torch.equal(*(head[f"{name}.weight"] for head in heads))
    assert batches[0].ids != batches[1].ids
    assert not torch.equal(*(batch.view.zoom for batch in batches))
    assert seeds == (0, 1)


class Answer(torch.nn.Module):
    """Body parameters that learn by themselves; those of the camera for whom its scale is surely positive."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rotations = torch.nn.Parameter(torch.eye(3).repeat(count, 24, 1, 1))
        self.betas = torch.nn.Parameter(torch.ones(count, 10))
        self.camera = torch.nn.Parameter(torch.tensor([[10.0, 0.0, 0.0]]).repeat(count, 1))

    def forward(self, images: torch.Tensor) -> BodyParameters:
        return BodyParameters(self.rotations, self.betas, self.camera, self.rotations[..., :2].flatten(2))


@pytest.mark.parametrize(
    ("name", "taught"),
    [
        ("keypoints_2d", {"rotations", "betas", "camera"}),
        ("joints_3d", {"rotations", "betas"}),
        ("rotations", {"rotations"}),
        ("betas", {"betas"}),
    ],
)
def test_each_loss_teaches_what_it_is_made_of(layout: Layout, name: str, taught: set[str]) -> None:
    weights = {f"loss_{other}": 0.0 for other in ("keypoints_2d", "joints_3d", "rotations", "betas")}
    weights[f"loss_{name}"] = 2.0
    params, _ = small_params(layout.root, **SMALL)
    spec, skeleton = params.body_mesh.model_copy(update=weights), Skeleton(load_body(layout.smpl))
    samples = read_samples(
        layout.records("coco_part_eft"), layout.crops("body_mesh", "coco_part_eft"), "train", 20, skeleton
    )
    answer = Answer(spec.batch)
    task = BodyMeshTask(answer, samples, skeleton, spec, 5, torch.device("cpu"))
    losses = task.losses(task.batch(0))
    losses["loss"].backward()
    assert losses["loss"].item() == pytest.approx(2 * losses[name].item())
    gradients = {of: value.grad for of, value in answer.named_parameters() if value.grad is not None}
    assert {of for of, gradient in gradients.items() if gradient.any()} == taught


def test_a_pool_grid_of_one_is_the_papers_mean_of_all_tokens(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL, body_mesh__pool_grid=1)
    samples = read_samples(
        layout.records("coco_part_eft"),
        layout.crops("body_mesh", "coco_part_eft"),
        "train",
        4,
        Skeleton(load_body(layout.smpl)),
    )
    network = build_network(layout.checkpoint("random"), samples.bodies, params.body_mesh, 5)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network.head(network.encoder(images).mean(dim=1))
    torch.testing.assert_close(network(images).rotations, expected.rotations)
    torch.testing.assert_close(network(images).camera, expected.camera)


def test_only_the_network_computes_in_bfloat16(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL, body_mesh__rotation_degrees=30.0)
    spec, skeleton = params.body_mesh, Skeleton(load_body(layout.smpl))
    samples = read_samples(
        layout.records("coco_part_eft"), layout.crops("body_mesh", "coco_part_eft"), "train", 20, skeleton
    )
    seen: list[torch.Tensor] = []

    class Recorder(MeanPose):
        def forward(self, images: torch.Tensor) -> BodyParameters:
            seen.append(images)
            return super().forward(images)

    network = Recorder(build_network(layout.checkpoint("random"), samples.bodies, spec, 5).head)
    task = BodyMeshTask(network, samples, skeleton, spec, 5, torch.device("cpu"))
    batch = task.batch(0)
    assert batch.view.flip.any()
    assert batch.view.angle.any()
    exact = task.losses(batch)
    with arithmetic("bf16", torch.device("cpu")):
        found = task.losses(batch)
    assert torch.equal(*seen)
    assert found == exact


class Oracle(BodyMeshNetwork):
    """Answers with the true parameters, whatever it sees."""

    def __init__(self, rotations: torch.Tensor, betas: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.rotations, self.betas, self.position = rotations, betas, 0

    def forward(self, images: torch.Tensor):  # type: ignore[override]
        here = slice(self.position, self.position + len(images))
        self.position += len(images)
        camera = torch.tensor([[0.9, 0.0, 0.0]]).expand(len(images), -1)
        return BodyParameters(self.rotations[here], self.betas[here], camera, self.rotations[here, :, :, :2].flatten(2))


def test_the_truth_has_no_error_and_a_turned_truth_only_an_unaligned_one(layout: Layout) -> None:
    body = load_body(layout.smpl)
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 16, Skeleton(body))
    bodies = samples.bodies
    values = evaluate(Oracle(bodies.rotations, bodies.betas), samples, body, {"neutral": body}, 64)
    assert all(value.value < 1e-2 for value in values.values())
    turned = bodies.rotations.clone()
    turned[:, 0] = torch.diag(torch.tensor([-1.0, 1.0, -1.0])) @ turned[:, 0]
    values = evaluate(Oracle(turned, bodies.betas), samples, body, {"neutral": body}, 64)
    assert values["pa_mpjpe"].value < 1e-2
    assert values["mpjpe"].value > 100


def test_errors_are_distances_of_joints_and_vertices_seen_from_the_pelvis(layout: Layout) -> None:
    body = load_body(layout.smpl)
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 16, Skeleton(body))
    true = samples.bodies
    rotations, betas = true.rotations.clone(), true.betas + 2
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([0.3, 0.2, -0.4])) @ rotations[:, 0]
    values = evaluate(Oracle(rotations, betas), samples, body, {"neutral": body}, 64)
    # The corners of a joint lie evenly around it.
    meshes = [body(b, r[:, 1:], r[:, 0]).vertices.unflatten(1, (24, CORNERS)) for r, b in
              ((rotations, betas), (true.rotations, true.betas))]  # fmt: skip
    found, truth = (mesh - mesh[:, :1].mean(2, keepdim=True) for mesh in meshes)
    places = [SMPL_JOINT_NAMES.index(name.replace("head_top", "head")) for name in LSP14_NAMES]
    joints = (found - truth).mean(2)[:, places]
    assert values["mpjpe"].value == pytest.approx(1000 * joints.norm(dim=-1).mean().item(), rel=1e-4)
    assert values["mpvpe"].value == pytest.approx(1000 * (found - truth).norm(dim=-1).mean().item(), rel=1e-4)


def test_the_mean_pose_errs_by_how_far_the_true_pose_is_from_it(layout: Layout) -> None:
    body = load_body(layout.smpl)
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 16, Skeleton(body))
    one = replace(samples, rows=samples.rows[:1], frame_ids=samples.frame_ids[:1], genders=samples.genders[:1],
                  bodies=samples.bodies.take(torch.arange(1)))  # fmt: skip
    pose = matrix_to_rotation_6d(one.bodies.rotations[0])
    answer = MeanPose(IterativeRegressor(4, start_pose=pose, start_betas=one.bodies.betas[0]))
    assert evaluate(answer, one, body, {"neutral": body}, 64)["pa_mpjpe"].value < 1e-2
    assert evaluate(answer, samples, body, {"neutral": body}, 64)["pa_mpjpe"].value > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_errors_that_a_processor_does(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL)
    skeleton = Skeleton(load_body(layout.smpl))
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 16, skeleton)
    network = build_network(layout.checkpoint("random"), samples.bodies, params.body_mesh, 5)
    found = []
    for place in ("cuda", "cpu"):
        body = load_body(layout.smpl).to(place)
        with full_float32():
            values = evaluate(network.to(place), samples, body, {"neutral": body}, 64)
        found.append({name: value.value for name, value in values.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(
    ("gibibytes", "cores", "places"),
    [
        ([80], 64, [(0, [11]), (0, [12]), (0, [13])]),
        ([40], 64, [(0, [11, 13]), (0, [12])]),
        ([12], 64, [(0, [11, 12, 13])]),
        ([80], 2, [(0, [11, 12, 13])]),
        ([24, 24], 64, [(0, [11, 13]), (1, [12])]),
        ([24, 80], 64, [(0, [11, 13]), (1, [12])]),
        ([80, 80, 80, 80], 64, [(0, [11]), (1, [12]), (2, [13])]),
        ([80, 80, 80, 80], 8, [(0, [11, 13]), (1, [12])]),
    ],
)
def test_on_gpus_as_many_seeds_run_afresh_as_all_have_room_for(
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    gibibytes: list[int],
    cores: int,
    places: list[tuple[int, list[int]]],
) -> None:
    params, _ = small_params(layout.root, **SMALL, body_mesh__seeds=[11, 12, 13])
    started = {}

    def start(jobs: list[Callable[[], None]], count: Callable[[], int], copied: bool) -> None:
        assert all(map(pickle.dumps, jobs))  # as processes that start afresh are handed them
        started.update(jobs=jobs, count=count(), copied=copied)

    monkeypatch.setattr("pipeline.tasks.body_mesh.side_by_side", start)
    monkeypatch.setattr("pipeline.tasks.body_mesh.num_cores", lambda: cores)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tasks.body_mesh.choose_device", lambda: torch.device("cuda"))
        patch.setattr(torch.cuda, "device_count", lambda: len(gibibytes))
        memory = [SimpleNamespace(total_memory=size << 30) for size in gibibytes]
        patch.setattr(torch.cuda, "get_device_properties", lambda card: memory[card])
        every_seed("random", params, layout)
    assert (started["count"], started["copied"]) == (len(places), False)
    assert [(card, list(seeds)) for card, _, seeds, *_ in (job.args for job in started["jobs"])] == places
    if len(gibibytes) == 2:
        cards: list[int] = []
        monkeypatch.setattr(torch.cuda, "set_device", cards.append)
        for job in started["jobs"]:
            job()
        assert cards == [0, 1]
        assert all(layout.metrics("body_mesh", f"random/{seed}").is_file() for seed in (11, 12, 13))


@pytest.fixture
def real_3dpw(layout: Layout) -> Iterator[Path]:
    """3DPW is real all of a sudden; the folder for its official bodies, empty."""
    folders = layout.raw("3dpw") / "imageFiles", layout.raw("smpl")
    for folder in folders:
        folder.mkdir(parents=True)
    yield folders[1]
    for folder in (layout.raw("3dpw"), layout.raw("smpl")):
        shutil.rmtree(folder)


def write_official(folder: Path, layout: Layout) -> None:
    """The toy body as an archive has them, the joints of Human3.6M apart."""
    with np.load(layout.smpl) as arrays:
        body = dict(arrays)
    np.save(folder / "J_regressor_h36m.npy", body.pop("h36m_regressor"))
    for name in ("SMPL_NEUTRAL.pkl", "SMPL_MALE.pkl", "basicModel_f_lbs_10_207_0_v1.0.0.pkl"):
        (folder / name).write_bytes(pickle.dumps(body))


def test_real_data_without_the_official_body_is_an_error_that_says_where_to_put_it(
    layout: Layout, real_3dpw: Path
) -> None:
    with pytest.raises(ParamsError, match=r"official female SMPL body; put SMPL_FEMALE\.pkl or .* and J_regre"):
        body_of(layout, "3dpw", "female")
    write_official(real_3dpw, layout)
    assert body_of(layout, "3dpw", "female").h36m_regressor is not None
    (real_3dpw / "J_regressor_h36m.npy").unlink()
    params, _ = small_params(layout.root, **SMALL)
    with pytest.raises(ParamsError, match=r"official neutral SMPL body; put J_regressor_h36m\.npy into .*SOURCE"):
        body_mesh("random", 21, params, layout)
    assert not list(layout.scratch("body_mesh", "random-21-*").parent.glob("body_mesh-random-21-*/step-*"))


def test_other_official_files_are_another_measurement(layout: Layout, real_3dpw: Path) -> None:
    params, _ = small_params(layout.root, **SMALL)
    write_official(real_3dpw, layout)

    def error() -> float:
        body_mesh("random", 22, params, layout)
        return read_file(layout.metrics("body_mesh", "random/22"), "test").values["mpjpe"].value

    first = error()
    assert error() == first
    joints = real_3dpw / "J_regressor_h36m.npy"
    np.save(joints, np.roll(np.load(joints), 1, axis=0))
    assert error() != pytest.approx(first, rel=1e-3)
