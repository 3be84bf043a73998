"""One row of `pretrain` in params.yaml -> a checkpoint, its loss curve, held-out losses and pictures
(CroCo-Human Sec. 3.1 and 4.2).

    python -m pipeline.training.pretrain --params params.yaml --run croco_body

trains on every GPU of this machine, or on its processor; several machines, which see one and the same project folder,
or processes on a processor, by torchrun:

    torchrun --nproc-per-node 2 -m -- pipeline.training.pretrain --params params.yaml --run croco_body

(`--` keeps torchrun from taking `--run` for one of its own options. Told to stop, it kills its processes after 30 s,
even while they save the state; from torch 2.12 on `--shutdown-timeout 300`, before `-m`, gives them longer.)
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from models import catalog, checkpoints
from models.blocks import DecoderBlock, EncoderBlock, PatchEmbedding
from models.completion import PatchWeights
from models.croco import CroCo
from models.encoder import encoder_of
from models.mae import MAE
from models.weight_files import misfit
from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.loading.keypoints import Keypoints
from pipeline.loading.pairs import Limits, Masking, PairPool, Source
from pipeline.process import die_with_parent, plain_errors
from pipeline.run_spec import Params, ParamsError, Pretrain
from pipeline.training import provenance
from pipeline.training.completion import (
    Completing,
    CrossCompletion,
    Saving,
    SingleCompletion,
    pictures,
    reference_use,
    savings,
)
from pipeline.training.keypoints import (
    CompletionWithKeypoints,
    CrossCompletionWithKeypoints,
    KeypointNetwork,
    LearnsKeypoints,
    SingleKeypoints,
    draw_keypoints,
    new_head,
    validate_keypoints,
)
from pipeline.training.loop import train
from pipeline.training.model_card import pretrained_card
from pipeline.training.optimizer import WarmupCosine, build
from pipeline.training.precision import choose_device, full_float32
from pipeline.training.provenance import Value
from pipeline.training.team import ALONE, Team, joined, together
from pipeline.training.unfinished import Basis, close_scratch, open_scratch

logger = logging.getLogger(__name__)

STAGE = "pretrain"
CODE = (
    "pipeline/metrics/pck.py",
    "pipeline/training/completion.py",
    "pipeline/training/keypoints.py",
    "pipeline/training/pretrain.py",
)
"""Beside what every training computes with: a run goes on with no state of another."""
MAX_VALIDATION = 512
NUM_PICTURES = 8
NUM_PREVIEWED = 3
PICTURE_SIDE = 128
COLUMNS = ("target", "masked", "prediction", "reference")
KEYPOINT_HEAD = "keypoint_head"
"""Folder of the head within the checkpoint of a run that learns keypoints: the checkpoint itself is CroCo's as ever."""


def pretrain(name: str, params: Params, layout: Layout, team: Team = ALONE) -> None:
    """Run (or go on with) the pre-training `name`; writes checkpoint, history, metrics and pictures.

    Every process of a `team` calls this; the first one writes.

    Raises:
        ParamsError: the network and the crops do not fit each other, or no such run.
        ValueError: the processes can not share the batch equally.
        ManifestError, CropsError, CheckpointError, FileNotFoundError: an input is missing or damaged.
        TrainingError: a loss that is not finite, a full disk, or an unfinished run of this name that was made from
            something else.
    """
    started = time.monotonic()
    if name not in params.pretrain:
        if waits_for := params.waits_for(name):
            raise ParamsError(f"{name} waits for {', '.join(waits_for)}, which this version does not read yet")
        raise ParamsError(f"no run {name!r} is declared; there are {', '.join(params.pretrain)}")
    run = params.pretrain[name]
    # Each process for itself, before any of them waits for another.
    team.shares(run.accumulate)[0].of(run.batch)
    device = choose_device()
    start = provenance.checkpoint_fingerprint(layout.checkpoint(run.init))
    model = initial_model(name, params, layout).to(device)
    sources = pair_sources(run, layout)
    inputs = [path for source in sources for path in (source.pairs, source.crops)]
    keypoints = None
    if run.learns_keypoints:
        records = [layout.records(source.name) for source in sources]
        inputs += records
        keypoints = Keypoints(list(zip(records, (source.crops for source in sources), strict=True)), model.img_size)
    spec = run_spec.pretrain_fingerprint(name, params)
    masking = Masking(
        run.masking,
        run.mask_ratio,
        run.visible_length,
        params.pairs.min_human_patches,
        model.patch_size,
        run.visible_bucket,
    )
    pool = PairPool(
        sources,
        run.kinds,
        heldout=run.heldout,
        size=model.img_size,
        masking=masking,
        jitter=run.jitter,
        seed=run.seed,
        limits=Limits(run.max_pairs, run.baseline_degrees, run.gap_s, run.without or {}),
        shared_crops=run.crops == "shared",
    )
    shares = (f"{count} {cell} ({pool.shares[cell]:.0%} of what is drawn)" for cell, count in pool.counts.items())
    logger.info("pairs to train on: %s", ", ".join(shares))
    files = provenance.file_fingerprints(inputs, layout.root)
    basis = Basis(
        run_spec.pretrain_parameters(name, params),
        {f"checkpoint {run.init}": start, **files},
        provenance.code_fingerprints(*CODE),
        str(device),
    )
    scratch = open_scratch(layout, STAGE, name, basis, leads=team.leads)
    silhouettes = any(params.datasets[source.name].silhouettes != "none" for source in sources)
    weights = PatchWeights(**run.patch_weights.model_dump()) if run.patch_weights else None
    how = Completing(run.batch, run.normalize, device, silhouettes, weights)
    network, task = learning(model, run, pool, masking, keypoints, how)
    previews = None
    if run.method != "keypoints" and run.num_previews and team.leads:
        previews = Previews(scratch / "previews", model, pool, run)
    made_from = {"init": run.init, "init_sha256": start, "normalize": run.normalize}
    facts = provenance.describe(spec, files, run.seed, run=name, **made_from)
    snapshots = {step: scratch / "snapshots" / str(step) for step in run.snapshots}

    def watch(done: int) -> None:
        if previews is not None:
            previews.draw(done)
        if done in snapshots:
            _take_over(model, network)
            there = facts | {"steps": done}
            card = pretrained_card(name, params, layout, model, pairs=pool.counts, facts=there, steps=done)
            checkpoints.save(snapshots[done], model, provenance=there, card=card)

    history = train(
        network,
        task,
        build(run.optimizer, network),
        WarmupCosine(run.optimizer.lr, run.steps, run.warmup_steps, run.cosine_steps),
        seed=run.seed,
        precision=run.precision,
        scratch=scratch,
        checkpoint_every=run.checkpoint_every,
        title=name,
        accumulate=run.accumulate,
        ema=run.ema,
        fuse=fusible(network, task) if run.compile else [],
        samples=run.batch,
        watch=watch,
        watch_after={*snapshots, *(previews.steps if previews is not None else ())},
        team=team,
    )
    if not team.leads:
        return
    _take_over(model, network)
    values: dict[str, Value] = {}
    saved: list[Saving] = []
    drawn: Drawn = {}
    with full_float32():
        if run.method != "keypoints":
            values, saved = validate(model, pool, run)
            drawn |= completion_pictures(model, pool, run)
        if previews is not None:
            drawn |= previews.drawn()
        if keypoints is not None and isinstance(network, LearnsKeypoints):
            longer_side = params.crops.size / params.crops.scale
            values |= validate_keypoints(network, pool.validation(MAX_VALIDATION), keypoints, longer_side)
            drawn |= keypoint_pictures(network, pool, keypoints)
    card = pretrained_card(name, params, layout, model, pairs=pool.counts, facts=facts, values=values)
    checkpoints.save(layout.checkpoint(name), model, provenance=facts, card=card)
    if isinstance(network, LearnsKeypoints):
        checkpoints.save(layout.checkpoint(name) / KEYPOINT_HEAD, network.head, provenance=facts)
    for step, snapshot in snapshots.items():
        shutil.copytree(snapshot, layout.checkpoint(f"{name}@{step}"))
    save_pictures(layout.pictures(STAGE, name), drawn)
    provenance.write_text(layout.history(STAGE, name), history.read_text())
    provenance.write_metrics(
        layout,
        STAGE,
        name,
        values,
        checkpoint=layout.checkpoint(name),
        pictures=layout.pictures(STAGE, name),
        params_fingerprint=spec,
        seconds=time.monotonic() - started,
        command=f"python -m pipeline.training.pretrain --params {params.params_file} --run {name}",
        run=name,
        seed=run.seed,
        pairs=pool.counts,
        reference_saves=[asdict(saving) for saving in saved],
        snapshots={str(step): checkpoints.fingerprint(snapshot) for step, snapshot in snapshots.items()},
        speed=json.loads((scratch / "live" / "speed.json").read_text()),
    )
    close_scratch(scratch)


def _take_over(model: CroCo | MAE, network: nn.Module) -> None:
    """The weights that `network` has learned become those of `model`, where it does not train the model itself."""
    if isinstance(network, KeypointNetwork):
        # The decoder stays as it was: whoever reads CroCo's checkpoints reads this one.
        model.load_state_dict(network.encoder.state_dict(), strict=False)


def initial_model(name: str, params: Params, layout: Layout) -> CroCo | MAE:
    """The network of the run with its initial weights; its last layer starts anew where those predict normalised
    patches and the run plain ones, or the other way round.

    Raises:
        ParamsError: `init` is another network.
    """
    run = params.pretrain[name]
    model = checkpoints.load(layout.checkpoint(run.init))
    wanted = catalog.create(run.network, run.seed)
    if run.fresh_decoder:
        model = _with_encoder_of(model, wanted)
    if why := misfit(model, wanted):
        raise ParamsError(
            f"pretrain.{name}: init {run.init!r} is no {run.network}: {why}. Give the run an init with the same "
            f"{'encoder' if run.fresh_decoder else 'network'}, such as an entry of import_weights"
            + ("" if run.fresh_decoder else "; where only the decoder differs, `fresh_decoder: true` will do")
        )
    start = model.state_dict()
    if _normalizes(run.init, params, layout) not in (None, run.normalize):
        logger.info("the last layer starts anew: normalize of %s, which %s starts from, is another", run.init, name)
        start = {key: value for key, value in start.items() if not key.startswith(_LAST_LAYER)}
    wanted.load_state_dict(start, strict=False)
    return wanted.train()


_LAST_LAYER = ("prediction_head.", "decoder_pred.")
"""Of CroCo and of MAE."""


def _normalizes(init: str, params: Params, layout: Layout) -> bool | None:
    """Whether what lies at `init` predicts normalised patches, as published weights do; None where it predicts
    nothing."""
    if init in params.pretrain:
        return params.pretrain[init].normalize
    if params.import_weights[init].source == "random":
        return None
    return bool(provenance.read(layout.checkpoint(init)).get("normalize", True))


def _with_encoder_of(initial: nn.Module, wanted: CroCo | MAE) -> nn.Module:
    """`wanted` with the encoder of `initial`; `initial` itself where their encoders differ."""
    if not isinstance(initial, CroCo | MAE) or encoder_of(initial).config != encoder_of(wanted).config:
        return initial
    wanted.load_state_dict(encoder_of(initial).state_dict(), strict=False)
    return wanted


PretrainingTask = CrossCompletion | SingleCompletion | SingleKeypoints | CrossCompletionWithKeypoints


def fusible(network: nn.Module, task: PretrainingTask) -> list[nn.Module]:
    """What of both gains by torch's compiler: much between few products, and the same code many times."""
    parts = (EncoderBlock, DecoderBlock, PatchEmbedding)
    return [*(part for part in network.modules() if isinstance(part, parts)), *task.fusible]


def learning(
    model: CroCo | MAE, run: Pretrain, pool: PairPool, masking: Masking, keypoints: Keypoints | None, how: Completing
) -> tuple[nn.Module, PretrainingTask]:
    """What trains in a run (the network, with the head for keypoints where they are learned), and at what."""
    if isinstance(model, MAE):
        return model, SingleCompletion(model, pool, how, masking, run.seed)
    if keypoints is None:
        return model, CrossCompletion(model, pool, how)
    head = new_head(model, run.seed)
    if run.method == "keypoints":
        network = KeypointNetwork(encoder_of(model), head).to(how.device)
        return network, SingleKeypoints(network, pool, keypoints, how)
    both = CompletionWithKeypoints(model, head).to(how.device)
    return both, CrossCompletionWithKeypoints(both, pool, keypoints, how, run.keypoint_weight)


def pair_sources(run: Pretrain, layout: Layout) -> list[Source]:
    return [
        Source(dataset, layout.pairs(run.pool, dataset), layout.crops(run.pool, dataset), weight)
        for dataset, weight in run.datasets.items()
    ]


def validate(model: CroCo | MAE, pool: PairPool, run: Pretrain) -> tuple[dict[str, Value], list[Saving]]:
    """Losses on the held-out pairs, and what their references save; nothing when none are held out."""
    pairs = pool.validation(MAX_VALIDATION)
    if pairs is None:
        logger.warning("no pairs are held out: no validation")
        return {}, []
    unit = "squared error of normalised patches" if run.normalize else "squared error"
    groups = pool.groups(pairs)
    losses = reference_use(model, pairs, groups, run.normalize)
    # Without `same`, which not every pair has: its mean would be over easier or harder pairs than the others.
    names = {
        "true": "heldout_loss",
        "other": "heldout_loss_other_reference",
        "black": "heldout_loss_black_reference",
    }
    values = {}
    for key, loss in losses.items():
        kind, _, part = key.partition("/")
        if kind in names:
            known = loss[~np.isnan(loss)]
            values[names[kind] + (f"_{part}" if part else "")] = Value(float(known.mean()), unit, len(known))
    return values, savings(losses, pool.kinds(pairs), groups)


Drawn = dict[str, tuple[NDArray[np.uint8], str]]
"""Pictures by the name of their file, each (H, W, 3) RGB with its caption."""


def completion_pictures(model: CroCo | MAE, pool: PairPool, run: Pretrain) -> Drawn:
    """Of each pair: target, what is seen of it, prediction, reference; for CroCo again with a black reference.

    Held-out pairs where there are any.
    """
    pairs = pool.validation(NUM_PICTURES) or pool.batch(0, NUM_PICTURES)
    drawn = pictures(model, pairs, run.normalize)
    rows = [[name for name in COLUMNS if name in drawn]]
    if "reference" in drawn:
        rows.append(["target", "masked", "prediction_black", "black"])
        drawn["black"] = np.zeros_like(drawn["reference"])
    return {
        f"completion_{number:02d}.png": (_enlarged(drawn, number, rows), f"pair {name}")
        for number, name in enumerate(pool.ids(pairs))
    }


def _enlarged(drawn: dict[str, NDArray[np.uint8]], number: int, rows: list[list[str]]) -> NDArray[np.uint8]:
    picture = np.concatenate([np.concatenate([drawn[name][number] for name in row], axis=1) for row in rows])
    zoom = max(1, round(PICTURE_SIDE / drawn["target"].shape[1]))
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


class Previews:
    """Completions of a few pairs, drawn at equal distances along a run: to watch it by while it lasts.

    Args:
        folder: where they lie until the run is over.
    """

    def __init__(self, folder: Path, model: CroCo | MAE, pool: PairPool, run: Pretrain) -> None:
        self._folder, self._model, self._run = folder, model, run
        self._pairs = pool.validation(NUM_PREVIEWED) or pool.batch(0, NUM_PREVIEWED)
        self.steps = {round(run.steps * (k + 1) / (run.num_previews + 1)) for k in range(run.num_previews)}

    def draw(self, done: int) -> None:
        """After so many steps."""
        if done not in self.steps:
            return
        drawn = pictures(self._model, self._pairs, self._run.normalize)
        columns = [name for name in COLUMNS if name in drawn]
        rows = [_enlarged(drawn, number, [columns]) for number in range(len(self._pairs))]
        self._folder.mkdir(parents=True, exist_ok=True)
        _save_picture(self._folder / f"training_{done:09d}.png", np.concatenate(rows))

    def drawn(self) -> Drawn:
        """All of them, those from before an interruption, too."""
        return {
            path.name: (np.asarray(Image.open(path)), f"after {step} of {self._run.steps} steps")
            for step in sorted(self.steps)
            if (path := self._folder / f"training_{step:09d}.png").exists()
        }


def keypoint_pictures(network: LearnsKeypoints, pool: PairPool, keypoints: Keypoints) -> Drawn:
    """Keypoints of the reference of each pair (see `draw_keypoints`); held-out pairs where there are any."""
    pairs = pool.validation(NUM_PICTURES) or pool.batch(0, NUM_PICTURES)
    drawn = draw_keypoints(network, pairs.reference, keypoints.of(pairs.reference_cut))
    names = pool.ids(pairs)
    return {
        f"keypoints_{number:02d}.png": (picture, f"pair {name}, its reference")
        for number, (picture, name) in enumerate(zip(drawn, names, strict=True))
    }


def save_pictures(folder: Path, drawn: Drawn) -> None:
    """One PNG each, instead of those that lie there; captions.json names them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (picture, _) in drawn.items():
        _save_picture(folder / name, picture)
    captions = {name: caption for name, (_, caption) in drawn.items()}
    provenance.write_text(folder / "captions.json", json.dumps(captions, indent=1) + "\n")


def _save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(picture).save(aside, "PNG")
    aside.replace(path)


def _work(name: str, params: Params, team: Team) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not team.leads:
        logging.disable(logging.WARNING)
    with plain_errors(f"pretrain {name}"):
        pretrain(name, params, Layout(params.scale), team)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", default="params.yaml", help="params file; decides the scale")
    parser.add_argument("--run", required=True, help="row of `pretrain`, `ablations`, `keypoints` or `study` to run")
    arguments = parser.parse_args()
    die_with_parent()
    with plain_errors(f"pretrain {arguments.run}"):
        work = partial(_work, arguments.run, run_spec.load(arguments.params))
        if choose_device().type == "cpu":
            # Sums come out the same on a machine with more cores. A second thread gains a fourth here, a second run
            # beside this one (`stage_cores`), or a second process of it, nearly all of its core.
            torch.set_num_threads(1)
        if torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
            together(torch.cuda.device_count(), work)
        else:
            with joined() as team:
                work(team)


if __name__ == "__main__":
    main()
