"""Body mesh recovery: fine-tune an encoder with the iterative regressor on COCO-Part-EFT, test on 3DPW
(CroCo-Human Sec. 4.1, Fig. 3a), one run per initialisation and seed.

    python -m pipeline.tasks.body_mesh --params params.yaml --init croco_body

runs every seed of the params file, on processors one per core, on GPUs spread over all of them, `--seed 0` that seed
alone. Runs of one seed share head weights, batches and augmentation, so initialisations compare in pairs.
`--init croco_body@600` starts from the weights of that run after 600 steps (Fig. 4), `--labels 0.1` takes a tenth of
the training images (Fig. 3b).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from models import checkpoints
from models.croco import CroCoEncoder
from models.encoder import encoder_of
from models.heads.iterative_regressor import BodyParameters, IterativeRegressor
from models.mae import MAEEncoder
from models.rotations import matrix_to_rotation_6d
from pipeline import bodies as body_models
from pipeline import run_spec
from pipeline.bodies import BodyModel, official
from pipeline.layout import Layout, has_real_data
from pipeline.loading.ahead import MAKERS
from pipeline.metrics.joint_error import mpjpe, mpvpe, pa_mpjpe, pa_mpvpe
from pipeline.process import die_with_parent, num_cores, plain_errors, side_by_side
from pipeline.run_spec import BodyMesh, Params, ParamsError
from pipeline.tasks.body_mesh_data import (
    MAX_BETA,
    Augmentation,
    Bodies,
    Samples,
    View,
    random_views,
    read_samples,
    see,
    turn,
    unchanged_views,
)
from pipeline.tasks.draw_mesh import mesh_row
from pipeline.tasks.skeleton import Skeleton
from pipeline.training import provenance
from pipeline.training.loop import step_seed, train
from pipeline.training.optimizer import WarmupCosine, build
from pipeline.training.precision import choose_device, full_float32
from pipeline.training.provenance import Value
from pipeline.training.team import WHOLE, Share
from pipeline.training.unfinished import Basis, close_scratch, open_scratch, refuse_others, scratch_of

logger = logging.getLogger(__name__)

STAGE = "body_mesh"
CODE = ("pipeline/tasks", "pipeline/bodies", "pipeline/metrics/joint_error.py", "pipeline/pickles.py")
"""Beside what every training computes with: a run goes on with no state of another."""
FEW_LABELS = "body_mesh_labels"
"""Stage of runs on a part of the training images."""
MEAN_POSE = "pa_mpjpe_of_mean_pose"
"""PA-MPJPE of the mean pose of the training bodies: what is below it was read off the image."""
NUM_PICTURES = 8
PICTURE_HEIGHT = 192
TEST_BATCH = 32
GPU_BYTES = 16 << 30
"""More than one fine-tuning should take of a GPU's memory, counted for a ViT-B with 64 images of 224 px."""


class BodyMeshNetwork(nn.Module):
    """Encoder, means of its tokens over `pool_grid` x `pool_grid` cells of the image, iterative regressor."""

    def __init__(self, encoder: CroCoEncoder | MAEEncoder, head: IterativeRegressor, pool_grid: int = 1) -> None:
        super().__init__()
        self.encoder, self.head, self.pool_grid = encoder, head, pool_grid

    def forward(self, images: Tensor) -> BodyParameters:
        """(B, 3, S, S) normalised -> body parameters in the camera frame of the crop."""
        tokens = self.encoder(images).float().transpose(1, 2).unflatten(2, self.encoder.grid)
        return self.head(F.adaptive_avg_pool2d(tokens, self.pool_grid).flatten(1))


class MeanPose(nn.Module):
    """Answers with what the regressor starts from, whatever the image shows."""

    def __init__(self, head: IterativeRegressor) -> None:
        super().__init__()
        self.head = head

    def forward(self, images: Tensor) -> BodyParameters:
        """(B, 3, S, S) -> the same body for each."""
        return self.head.parameters_of(self.head.start.expand(len(images), -1))


@dataclass(frozen=True)
class MeshBatch:
    ids: list[str]
    images: Tensor
    view: View
    bodies: Bodies


class BodyMeshTask:
    """Batches, and losses after SPIN on fitted bodies: keypoints, joints, rotations, shape.

    Two of them are not SPIN's own. Keypoints are the 24 joints of the fit as its camera shows them, all counting the
    same, where SPIN has annotated ones weighed by their confidence; joints are centred on the pelvis joint, not between
    the hips.
    """

    def __init__(
        self,
        network: BodyMeshNetwork,
        samples: Samples,
        skeleton: Skeleton,
        spec: BodyMesh,
        seed: int,
        device: torch.device,
    ) -> None:
        self._network, self._samples, self._spec, self._seed, self._device = network, samples, spec, seed, device
        self._skeleton = skeleton.to(device)
        self._how = Augmentation(spec.rotation_degrees, spec.scale_jitter, spec.colour_jitter, spec.flip)

    def batch(self, step: int, share: Share = WHOLE) -> MeshBatch:
        """Samples of epoch after epoch, each shuffled by (seed, epoch)."""
        count, size = len(self._samples), self._spec.batch
        places = np.arange(step * size, (step + 1) * size)
        orders = {
            epoch: np.random.default_rng([self._seed, epoch]).permutation(count) for epoch in np.unique(places // count)
        }
        chosen = np.array([orders[place // count][place % count] for place in places])
        views = random_views(np.random.default_rng(step_seed(self._seed, step, stream=1)), size, self._how)
        part = share.of(size)
        chosen = chosen[part]
        return MeshBatch(
            ids=[self._samples.frame_ids[i] for i in chosen],
            images=torch.from_numpy(self._samples.pixels.images.whole(self._samples.rows[chosen])),
            view=views.take(part),
            bodies=self._samples.bodies.take(torch.from_numpy(chosen)),
        )

    def ids(self, batch: MeshBatch) -> Sequence[str]:
        return batch.ids

    def losses(self, batch: MeshBatch) -> dict[str, Tensor]:
        # Images and true bodies keep their digits: bfloat16 has three, too few for where a pixel or a joint is.
        with torch.autocast(self._device.type, enabled=False):
            images = see(batch.images.to(self._device), batch.view, self._spec.input_size)
            truth = turn(batch.bodies.to(self._device), batch.view)
        found = self._network(images)
        with torch.autocast(self._device.type, enabled=False):
            betas, camera = found.betas.float(), found.camera.float()
            joints = self._skeleton(found.rotations, betas)
            points = camera[:, None, :1] * (joints[..., :2] + camera[:, None, 1:])
            losses = {
                "keypoints_2d": F.mse_loss(points, truth.points),
                "joints_3d": F.mse_loss(joints - joints[:, :1], truth.joints),
                "rotations": F.mse_loss(found.rotations, truth.rotations),
                "betas": F.mse_loss(betas, truth.betas),
            }
            total = sum(getattr(self._spec, f"loss_{name}") * value for name, value in losses.items())
            # Keeps the camera's scale positive, as in SPIN.
            total = total + torch.exp(-10 * camera[:, 0]).square().mean()
        return {"loss": total} | {name: value.detach() for name, value in losses.items()}


def run_name(init: str, seed: int, labels: float) -> tuple[str, str]:
    """Stage and name of one fine-tuning: where its results lie."""
    return (STAGE, f"{init}/{seed}") if labels == 1 else (FEW_LABELS, f"{init}/{labels:g}/{seed}")


def crops_files(params: Params, layout: Layout) -> dict[str, Path]:
    """Of the data set to train on and of that to test on, by their names."""
    spec = params.body_mesh
    return {name: layout.crops(params.datasets[name].pool, name) for name in (spec.train_dataset, spec.test_dataset)}


def basis_of(init: str, params: Params, layout: Layout) -> Basis:
    """What decides how fine-tunings from `init` end, beside seed and share of labels, which stand in their names."""
    run, on_the_way, step = init.partition("@")
    if run not in (known := [*params.import_weights, *params.pretrain]):
        raise ParamsError(f"no weights {run!r} to start from are declared; there are {', '.join(known)}")
    kept = params.pretrain[run].snapshots if run in params.pretrain else ()
    if on_the_way and step not in map(str, kept):
        there = f"there are some after {', '.join(map(str, kept))}" if kept else "it has no `snapshots`"
        raise ParamsError(f"no weights of {run} after {step!r} steps are declared; {there}")
    crops = crops_files(params, layout)
    inputs = [*map(layout.records, crops), *crops.values(), layout.smpl]
    if any(has_real_data(layout.raw(name)) for name in crops):
        inputs += official.files(layout.raw("smpl"))
    return Basis(
        run_spec.body_mesh_parameters(params),
        {
            _start(init): provenance.checkpoint_fingerprint(layout.checkpoint(init)),
            **provenance.file_fingerprints(inputs, layout.root),
        },
        provenance.code_fingerprints(*CODE),
        str(choose_device()),
    )


def _start(init: str) -> str:
    return f"checkpoint {init}"


def body_mesh(init: str, seed: int, params: Params, layout: Layout, labels: float = 1.0) -> None:
    """Run (or go on with) one fine-tuning; writes task checkpoint, history, metrics and pictures.

    `labels` is the share of the training images that it has, evenly spread over all; steps and batches stay the same.

    Does nothing when these lie there already, made from the very same inputs by the same code.

    Raises:
        ParamsError, ManifestError, CropsError, CheckpointError, BodyFileError, FileNotFoundError: an
            input is missing, damaged or does not fit; the message says which.
        TrainingError: a loss that is not finite, a full disk, or an unfinished run of this name that was made from
            something else.
    """
    started = time.monotonic()
    spec, device = params.body_mesh, choose_device()
    crops, basis = crops_files(params, layout), basis_of(init, params, layout)
    stage, name = run_name(init, seed, labels)
    if provenance.is_measured(layout, stage, name, basis.key):
        logger.info(
            "%s is measured already, from the same inputs; remove %s to have it again",
            name,
            layout.metrics(stage, name),
        )
        # Of a run that was killed between its last result and this.
        shutil.rmtree(scratch_of(layout, stage, name, basis), ignore_errors=True)
        return
    scratch = open_scratch(layout, stage, name, basis)
    body = load_body(layout, spec.train_dataset, "neutral")
    skeleton = Skeleton(body)
    samples = read_samples(
        layout.records(spec.train_dataset),
        crops[spec.train_dataset],
        "train",
        spec.max_train,
        skeleton,
        MAX_BETA,
        labels,
    )
    # Before the training, which nobody wants to wait for to hear of a file that is not there. The test may use other
    # people's bodies than training: official 3DPW comes with gendered ones.
    test_skeleton = Skeleton(load_body(layout, spec.test_dataset, "neutral"))
    tested = read_samples(
        layout.records(spec.test_dataset), crops[spec.test_dataset], spec.test_split, spec.max_test, test_skeleton
    )
    genders = sorted(set(tested.genders))
    true_bodies = {gender: load_body(layout, spec.test_dataset, gender).to(device) for gender in genders}
    network = build_network(layout.checkpoint(init), samples.bodies, spec, seed).to(device)
    history = train(
        network,
        BodyMeshTask(network, samples, skeleton, spec, seed, device),
        build(spec.optimizer, network, encoder_prefix="encoder."),
        WarmupCosine(spec.optimizer.lr, spec.steps, spec.warmup_steps),
        seed=seed,
        precision=spec.precision,
        scratch=scratch,
        checkpoint_every=spec.checkpoint_every,
        title=name,
        samples=spec.batch,
    )
    folder = layout.task_checkpoint(stage, name)
    fingerprint, files = run_spec.body_mesh_fingerprint(params), dict(basis.inputs)
    start = files.pop(_start(init))
    facts = provenance.describe(fingerprint, files, seed, init=init, init_sha256=start)
    config = {
        "architecture": "body_mesh",
        "encoder": network.encoder.config,
        "num_joints": 24,
        "pool_grid": spec.pool_grid,
        "head_width": spec.head_width,
    }
    checkpoints.save(folder, network, provenance=facts, config=config)
    body = body.to(device)
    with full_float32():
        values = evaluate(network, tested, body, true_bodies, spec.input_size)
        # Which way the mean pose faces is nobody's guess, so only its error after alignment means something.
        constant = evaluate(MeanPose(network.head), tested, body, true_bodies, spec.input_size)
        values[MEAN_POSE] = constant["pa_mpjpe"]
        draw(layout.pictures(stage, name), network, tested, body, spec.input_size)
    provenance.write_text(layout.history(stage, name), history.read_text())
    provenance.write_metrics(
        layout,
        stage,
        name,
        values,
        checkpoint=folder,
        pictures=layout.pictures(stage, name),
        params_fingerprint=fingerprint,
        seconds=time.monotonic() - started,
        command=f"python -m pipeline.tasks.body_mesh --params {params.params_file} --init {init} --seed {seed}"
        + (f" --labels {labels:g}" if labels < 1 else ""),
        init=init,
        labels=labels,
        num_train=len(samples),
        init_sha256=start,
        seed=seed,
        key=basis.key,
    )
    close_scratch(scratch)


def every_seed(init: str, params: Params, layout: Layout, labels: float = 1.0) -> None:
    """`body_mesh` for the seeds of a params file, side by side; what lies there of other seeds goes.

    On processors with one thread each: in sum that is faster than one after the other with all threads. On each GPU as
    many as it surely has room for: a fine-tuning of a ViT asks for its next kernel too late to keep a large one busy.
    Raises as `body_mesh`; SystemExit with the status of a process that failed.
    """
    seeds = params.body_mesh.seeds
    # All of them before any starts: who is told to remove what is in the way is told once.
    names = [run_name(init, seed, labels) for seed in seeds]
    refuse_others(layout, names[0][0], [name for _, name in names], basis_of(init, params, layout))
    for find in (layout.task_checkpoint, layout.pictures, layout.metrics, layout.history):
        for entry in find(*run_name(init, seeds[0], labels)).parent.glob("*"):
            if entry.stem not in map(str, seeds):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if choose_device().type == "cpu":
        side_by_side([partial(one_seed, init, seed, params, layout, labels) for seed in seeds], num_cores)
        return
    cards = torch.cuda.device_count()
    room = min(torch.cuda.get_device_properties(card).total_memory for card in range(cards)) // GPU_BYTES
    places = max(1, min(cards * room, num_cores() // MAKERS, len(seeds)))
    # A place keeps its seeds, one after the other: whichever ends first, no card gets more than it has room for.
    jobs = [
        partial(seeds_on_gpu, place % cards, init, seeds[place::places], params, layout, labels)
        for place in range(places)
    ]
    side_by_side(jobs, lambda: places, copied=False)


def seeds_on_gpu(
    card: int, init: str, seeds: Sequence[int], params: Params, layout: Layout, labels: float = 1.0
) -> None:
    """`one_seed` for one seed after the other, on the GPU of that number."""
    torch.cuda.set_device(card)
    for seed in seeds:
        one_seed(init, seed, params, layout, labels)


def one_seed(init: str, seed: int, params: Params, layout: Layout, labels: float) -> None:
    """`body_mesh` as a command: raises SystemExit with one line where its user can mend what is wrong."""
    _set_up()
    with plain_errors(f"body_mesh {init} seed {seed}"):
        body_mesh(init, seed, params, layout, labels)


def _set_up() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Sums come out the same on a machine with more cores, and runs of several seeds do not wait for each other.
    torch.set_num_threads(1)


def build_network(checkpoint: Path, bodies: Bodies, spec: BodyMesh, seed: int) -> BodyMeshNetwork:
    """The encoder of a checkpoint with a fresh head whose weights depend on `seed` alone.

    The head starts from the mean pose of the training bodies, upright and facing the camera; SPIN's
    mean parameters are such a mean over its own data.
    """
    encoder = encoder_of(checkpoint, img_size=spec.input_size, drop_path=spec.drop_path)
    left, _, right = torch.linalg.svd(bodies.rotations.double().mean(dim=0))
    sign = torch.ones(24, 3, dtype=torch.float64)
    sign[:, 2] = torch.linalg.det(left @ right)
    mean = left @ (sign[..., None] * right)
    mean[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    head = IterativeRegressor(
        encoder.width * spec.pool_grid**2,
        hidden_width=spec.head_width,
        dropout=spec.dropout,
        start_pose=matrix_to_rotation_6d(mean).float(),
    )
    head.reset_parameters(torch.Generator().manual_seed(seed))
    return BodyMeshNetwork(encoder, head, spec.pool_grid).train()


def load_body(layout: Layout, dataset: str, gender: str) -> BodyModel:
    """The body that a dataset's parameters belong to: the open one for a stand-in, official SMPL for real data.

    Raises ParamsError when the dataset is real and the official body, or what its joints are measured by, is not in
    data/raw/smpl.
    """
    if not has_real_data(layout.raw(dataset)):
        return body_models.load(layout.smpl)
    if lacking := official.missing(layout.raw("smpl"), [gender]):
        raise ParamsError(
            f"{dataset} is real data, so its parameters are of the official {gender} SMPL body; put "
            f"{' and '.join(lacking)} into {layout.raw('smpl')}, as SOURCE.md there says"
        )
    path = official.find(layout.raw("smpl"), gender)
    assert path is not None
    return body_models.load(path)


@torch.no_grad()
def evaluate(
    network: nn.Module, samples: Samples, body: BodyModel, true_bodies: dict[str, BodyModel], size: int
) -> dict[str, Value]:
    """Protocol of SPIN on 3DPW: 14 joints regressed from both meshes, each centred on its own pelvis.

    All is computed where `body` is, so network and bodies must be on one device.

    Args:
        body: what the prediction drives (neutral).
        true_bodies: by gender, what the truth drives.

    Returns:
        Means over the samples, mm. Vertex errors only where both meshes have the same vertices.
    """
    network.eval()
    device = _device_of(body)
    errors: dict[str, list[Tensor]] = {"mpjpe": [], "pa_mpjpe": [], "mpvpe": [], "pa_mpvpe": []}
    for rows in np.array_split(np.arange(len(samples)), -(-len(samples) // TEST_BATCH)):
        predicted, joints = _mesh(body, *_predict(network, samples, rows, size, device)[:2])
        truth = samples.bodies.take(torch.from_numpy(rows)).to(device)
        # Samples of one gender at a time; the order within a batch does not matter to a mean.
        for gender, true_body in true_bodies.items():
            here = torch.tensor([samples.genders[row] == gender for row in rows], device=device)
            if not here.any():
                continue
            vertices, true_joints = _mesh(true_body, truth.rotations[here], truth.betas[here])
            errors["mpjpe"].append(mpjpe(joints[here], true_joints))
            errors["pa_mpjpe"].append(pa_mpjpe(joints[here], true_joints))
            if vertices.shape[1] == predicted.shape[1]:
                errors["mpvpe"].append(mpvpe(predicted[here], vertices))
                errors["pa_mpvpe"].append(pa_mpvpe(predicted[here], vertices))
    all_errors = {name: torch.cat(parts) for name, parts in errors.items() if parts}
    return {name: Value(float(each.mean()), "mm", len(each)) for name, each in all_errors.items()}


def _mesh(body: BodyModel, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices (B, V, 3) and 14 joints (B, 14, 3), both centred on the pelvis regressed from the vertices."""
    vertices = body(betas, rotations[:, 1:], rotations[:, 0]).vertices
    pelvis = body.h36m17(vertices)[:, :1]
    return vertices - pelvis, body.lsp14(vertices) - pelvis


def _device_of(body: BodyModel) -> torch.device:
    return next(body.buffers()).device


def _predict(
    network: nn.Module, samples: Samples, rows: np.ndarray, size: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.from_numpy(samples.pixels.images.whole(samples.rows[rows])).to(device)
    found = network(see(images, unchanged_views(len(rows)), size))
    return found.rotations, found.betas, found.camera


@torch.no_grad()
def draw(folder: Path, network: BodyMeshNetwork, samples: Samples, body: BodyModel, size: int) -> None:
    """PNGs of evenly spread test samples: the crop, the mesh over it, the mesh from the side; captions.json beside.

    What lies there from before goes.
    """
    network.eval()
    rows = np.unique(np.linspace(0, len(samples) - 1, NUM_PICTURES).round().astype(int))
    rotations, betas, camera = _predict(network, samples, rows, size, _device_of(body))
    vertices = body(betas, rotations[:, 1:], rotations[:, 0]).vertices.cpu().numpy()
    images = samples.pixels.images.whole(samples.rows[rows])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    captions = {}
    for row, image, mesh, weak in zip(rows, images, vertices, camera.cpu().numpy(), strict=True):
        name = f"{samples.frame_ids[row]}.png"
        aside = folder / f".{name}.{os.getpid()}.tmp"
        Image.fromarray(mesh_row(image, mesh, weak, body.faces, PICTURE_HEIGHT)).save(aside, "PNG")
        aside.replace(folder / name)
        captions[name] = f"frame {samples.frame_ids[row]}"
    provenance.write_text(folder / "captions.json", json.dumps(captions, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tasks.body_mesh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--params", default="params.yaml", help="params file; decides the scale")
    parser.add_argument(
        "--init",
        required=True,
        help="checkpoint to start from: a row of import_weights or pretrain, or RUN@STEP, a snapshot of a run",
    )
    parser.add_argument("--labels", type=float, default=1.0, help="share of the training images (default: all)")
    parser.add_argument("--seed", type=int, help="seed of head, batches and augmentation (default: all)")
    arguments = parser.parse_args()
    if not 0 < arguments.labels <= 1:
        parser.error(f"--labels must be above 0 and at most 1, not {arguments.labels:g}")
    _set_up()
    die_with_parent()
    with plain_errors(f"body_mesh {arguments.init}"):
        params = run_spec.load(arguments.params)
        layout = Layout(params.scale)
        if arguments.seed is None:
            every_seed(arguments.init, params, layout, arguments.labels)
        else:
            one_seed(arguments.init, arguments.seed, params, layout, arguments.labels)


if __name__ == "__main__":
    main()
