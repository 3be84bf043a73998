"""params.yaml as checked, frozen objects: one class per section, unknown keys refused.

The same classes are the parameters of the Prefect flows, so the form in the UI, the file
and the code can not drift apart. Sections carry the names of the DVC stages.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from models import catalog

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _is_ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError(f"nothing lies from {ends[0]:g} on and below {ends[1]:g}; the smaller one comes first")
    return ends


Range = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]], AfterValidator(_is_ascending)]

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Takes in plain values only; in C, where PyYAML has that, several times as fast: every stage and many a test begin
with a params file."""


def _is_plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError("a name has letters of English, digits, _ and - alone, and begins with a letter or a digit")
    return name


Name = Annotated[str, AfterValidator(_is_plain)]
"""Of a data set or a run: part of paths, of DVC's `stage@name` and of `run@step`."""


class ParamsError(ValueError):
    """params.yaml says something that can not be; the message names file, key and remedy."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AdamW(Section):
    """The optimiser of the field."""

    name: Literal["adamw"]
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate, already scaled to the batch."""
    weight_decay: Annotated[float, Field(ge=0)]
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of an encoder's block over that of the block above it, in fine-tuning."""


class Muon(Section):
    """The optimiser that learns several times faster where there are only minutes to learn in."""

    name: Literal["muon"]
    lr: Annotated[float, Field(gt=0)]
    """Peak spectral norm of a step, about; times sqrt(outputs / inputs) for kernels with more outputs than inputs."""


Optimizer = Annotated[AdamW | Muon, Field(discriminator="name")]


class Bodies(Section):
    num_shapes: Positive
    """Random adult Anny shapes behind the 10 shape components."""
    num_heldout: Positive
    """Unseen shapes on which the shape error is measured."""
    seed: int


class Motions(Section):
    num_subjects: Positive
    clips_per_subject: Positive
    seconds: Annotated[float, Field(gt=0)]
    fps: Annotated[float, Field(gt=0)]
    seed: int


class Dataset(Section):
    """One dataset: which pool it feeds, which pairs it gives and how its stand-in is made."""

    pool: Literal["body", "looks", "hand", "static", "body_mesh", "backgrounds"]
    silhouettes: Literal["dataset", "pgn", "none"] = "none"
    pairs: tuple[Literal["view", "pose"], ...] = ()
    max_records: Positive | None = None
    """Cap on records taken from real data, spread evenly; None = all."""
    standin: dict[str, int | float | list[int]] = {}
    """Sizes of the stand-in; keys are the writer's own arguments."""
    standin_seed: int = 0


class Crops(Section):
    size: Positive
    """Side of a stored crop in pixels."""
    scale: Annotated[float, Field(ge=1)]
    """Side of the square crop over the longer side of the person box."""


class Parser(Section):
    """The small PGN trained on rendered part labels."""

    width: Annotated[float, Field(gt=0)]
    """Of the ResNet; 1 is published."""
    head_width: Annotated[float, Field(gt=0)]
    """Of the layers behind it; 1 is published."""
    depths: tuple[Positive, Positive, Positive, Positive]
    windows: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Sides of pyramid pooling's means in cells of the label map; 60, 30, 20, 10 are published."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    size: Positive
    """Side in px that crops are brought to before they are parsed; a label map has size / 8 cells a side."""
    steps: Positive
    batch: Positive
    optimizer: Optimizer
    seed: int


def _leaves_steps(warmup_steps: int, info: ValidationInfo) -> int:
    steps = info.data.get("steps")  # None: wrong itself, and named already
    if warmup_steps < 0 or (steps is not None and warmup_steps >= steps):
        raise ValueError("must be at least 0 and below `steps`: the learning rate rises first, and then falls")
    return warmup_steps


Warmup = Annotated[int, AfterValidator(_leaves_steps)]
"""Steps over which the learning rate rises, of the `steps` above it."""


class Pairs(Section):
    """How pairs are chosen from the records of one dataset."""

    max_view: Positive
    max_pose: Positive
    patch: Positive
    """Patch side of the stored patch masks, in pixels of the network's input."""
    input_size: Positive
    min_human_patches: int
    min_gap_s: float
    max_gap_s: float
    min_baseline_degrees: float
    seed: int

    @model_validator(mode="after")
    def _gaps_are_ascending(self) -> Pairs:
        if self.min_gap_s >= self.max_gap_s:
            raise ValueError(f"no gap lies between min_gap_s {self.min_gap_s:g} and max_gap_s {self.max_gap_s:g}")
        return self


def _is_of_the_method(network: str, info: ValidationInfo) -> str:
    if "method" not in info.data:  # it is wrong itself, and named already
        return network
    known = catalog.names("mae" if info.data["method"] == "mae" else "croco")
    if network not in known:
        raise ValueError(f"no network of method {info.data['method']}; there are {', '.join(known)}")
    return network


Network = Annotated[str, AfterValidator(_is_of_the_method)]
"""A name of models.catalog that goes with the `method` above it."""


class Initial(Section):
    """An initialisation that is not pre-trained here: random, or a published file."""

    method: Literal["croco", "mae"]
    source: str
    """`random`, or the path of a published checkpoint, a file or a folder of ours (see data/raw/weights)."""
    network: Network
    seed: int = 0
    """Of what is drawn: all weights, or the decoder that a published file of MAE comes without."""


class PatchWeights(Section):
    """How much the error of a patch of the target counts in the loss; see `models.completion.PatchWeights`."""

    human: Annotated[float, Field(ge=0)] = 1.0
    background: Annotated[float, Field(ge=0)] = 1.0
    visible: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _hidden_ones_count(self) -> PatchWeights:
        if self.human == self.background == 0:
            raise ValueError("human and background are both 0: there is nothing hidden to predict")
        return self


class Pretrain(Section):
    """One pre-training run (paper sections 3.1 and 4.2)."""

    method: Literal["croco", "mae", "keypoints", "croco_keypoints"]
    """Completion by CroCo or by MAE, supervised 2D keypoints, or CroCo's completion and keypoints (Table 3)."""
    network: Network
    init: str
    """An entry of import_weights, or another pre-training run."""
    fresh_decoder: bool = False
    """Take the encoder alone from `init`; the decoder is that of `network`, and starts anew."""
    pool: Literal["body", "looks", "hand", "static"]
    datasets: dict[str, Annotated[float, Field(gt=0)]]
    """Dataset -> sampling weight."""
    kinds: dict[Literal["view", "pose"], Annotated[float, Field(gt=0)]]
    """Kind of pair -> sampling weight."""
    without: dict[str, tuple[Literal["view", "pose"], ...]] | None = None
    """Dataset -> kinds of its pairs that the run leaves aside; None = none."""
    masking: Literal["human", "uniform"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    visible_length: Literal["max_n", "max_nh"]
    normalize: bool
    """Predict each patch less its mean and over its deviation, as in CroCo's code and weights; else its plain values,
    as equation 2 of the paper has it. After initial weights of the other kind the last layer starts anew."""
    patch_weights: PatchWeights | None = None
    """None = hidden patches count alike and visible ones not at all, as in CroCo's code. Equation 2 of the paper is
    over all patches: {visible: 1} with `normalize: false`."""
    steps: Positive
    warmup_steps: Warmup
    cosine_steps: Positive | None = None
    """After how many steps the learning rate would reach zero along its half cosine, if the run did not end before;
    None = at its end."""
    batch: Positive
    optimizer: Optimizer
    max_pairs: Positive | None = None
    """Of each dataset and kind, spread evenly over its manifest; None = all there are to train on."""
    baseline_degrees: Range | None = None
    """Pairs of kind view only from this angle between their cameras on, and below that one; None = all."""
    gap_s: Range | None = None
    """Likewise pairs of kind pose, by the time between their images."""
    heldout: Share
    """Share of the pairs kept for validation, in whole groups that share frames."""
    crops: Literal["shared"] | None = None
    """The network's input is cut out of the stored crops at one random place for both images of a pair; None = for
    each at a place of its own, as in CroCo's code (naver/croco, RandomCropPair). Silhouettes follow their image."""
    jitter: Share
    """Strength of brightness, contrast and saturation jitter, drawn per image."""
    keypoint_weight: Annotated[float, Field(gt=0)] = 30.0
    """Of the keypoint loss beside that of completion (method croco_keypoints). The paper is silent; with 30 both pull
    the encoder about equally hard (ratio of the gradients' norms 26 to 32 in steps 200 to 400 at scale mini)."""
    precision: Literal["fp32", "bf16"]
    accumulate: Positive = 1
    """Micro-batches that a process makes of its part of `batch`, for want of memory. All show as many patches as the
    whole batch does, so they change results by rounding only."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running average of the weights, which is then the checkpoint; None = the last weights."""
    compile: bool = False
    """Fuse what blocks do between their products with torch's compiler: for GPUs, and long runs. Needs a C compiler."""
    visible_bucket: Positive = 1
    """With human masking, the number of visible patches is rounded up to a multiple of this. Each number is compiled
    for itself, eight at most: set 7 with `compile` at 224 px and patches of 16, of whose 196 a quarter is 7 x 7."""
    num_previews: Annotated[int, Field(ge=0)] = 4
    """How many times along the run some completions are drawn."""
    snapshots: tuple[Positive, ...] = ()
    """Numbers of steps after which the weights are kept, beside those of the end (Figure 4)."""
    checkpoint_every: Positive
    seed: int
    """Of the order of pairs, crops, colours, masks and fresh parts (decoder, head of keypoints); other initial weights
    are those of `init`."""

    @field_validator("masking")
    @classmethod
    def _mae_masks_uniformly(cls, masking: str, info: ValidationInfo) -> str:
        if masking == "human" and info.data.get("method") == "mae":
            raise ValueError("method mae hides patches uniformly; set masking: uniform, or take method croco")
        return masking

    @field_validator("patch_weights")
    @classmethod
    def _knows_the_person(cls, weights: PatchWeights | None, info: ValidationInfo) -> PatchWeights | None:
        method = info.data.get("method")
        if weights and method == "keypoints":
            raise ValueError("method keypoints completes nothing; remove patch_weights")
        if weights and method == "mae" and weights.human != weights.background:
            raise ValueError("method mae takes no note of the person; give human and background the same weight")
        return weights

    @model_validator(mode="after")
    def _learns_to_the_end(self) -> Pretrain:
        if self.cosine_steps is not None and self.cosine_steps < self.steps:
            raise ValueError(f"cosine_steps {self.cosine_steps} ends before the run does, at {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _snapshots_are_on_the_way(self) -> Pretrain:
        if wrong := [step for step in self.snapshots if step >= self.steps]:
            raise ValueError(f"snapshots {wrong} do not lie before the end, at {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Pretrain:
        if self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} can not be cut into {self.accumulate} equal micro-batches")
        return self

    @property
    def learns_keypoints(self) -> bool:
        return self.method in ("keypoints", "croco_keypoints")

    @model_validator(mode="after")
    def _layers_learn_alike(self) -> Pretrain:
        if isinstance(self.optimizer, AdamW) and self.optimizer.layer_decay != 1:
            raise ValueError("optimizer.layer_decay is for fine-tuning; remove it")
        return self


class BodyMesh(Section):
    """Fine-tuning and evaluation of body mesh recovery (paper section 4.1)."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    train_dataset: str
    test_dataset: str
    test_split: Literal["val", "test"]
    max_train: Positive
    max_test: Positive
    input_size: Positive
    pool_grid: Positive
    """The head sees the means of so many by so many cells of tokens: 1 is the paper's mean of all; an encoder of
    a few blocks does not carry over where in the image a limb is, and learns nothing from that mean."""
    head_width: Positive
    """Hidden layers of the regressor; 1024 in SPIN, for features of 2048."""
    steps: Positive
    batch: Positive
    optimizer: Optimizer
    drop_path: Share
    dropout: Share
    warmup_steps: Warmup
    rotation_degrees: float
    scale_jitter: float
    colour_jitter: float
    flip: bool
    loss_keypoints_2d: float
    loss_joints_3d: float
    loss_rotations: float
    loss_betas: float
    loss_vertices: Annotated[float, Field(ge=0, le=0)]
    """0, as in SPIN: there is no such term here."""
    precision: Literal["fp32", "bf16"]
    checkpoint_every: Positive

    @field_validator("seeds")
    @classmethod
    def _each_seed_comes_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise ValueError(f"seeds {twice} stand there more than once: a run of each is enough")
        return seeds


class Starts(Section):
    """Initialisations that one task is fine-tuned from."""

    headline: Annotated[tuple[str, ...], Field(min_length=1)]
    """By plain `dvc repro`."""
    tables: tuple[str, ...] = ()
    """Further ones, when the other tables are made."""


class Finetune(Section):
    body_mesh: Starts


class Figure3b(Section):
    """Fine-tuning on a part of the labels (paper Figure 3(b))."""

    inits: tuple[str, ...]
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """Of the training images; all of them are `body_mesh` itself."""


class Figure4(Section):
    """Fine-tuning from weights on the way (paper Figure 4)."""

    runs: tuple[str, ...]
    steps: tuple[Positive, ...]
    """Of pre-training; each a snapshot of every run. The last weights are `body_mesh` itself."""


class Report(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    num_examples: Positive
    seed: int


class Params(Section):
    """The whole file. `scale` names the folder its outputs go to."""

    scale: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    root: str
    """The project root as seen from the folder of the dvc.yaml that reads this file."""
    params_file: str
    """This file as seen from the project root."""
    report_folder: str
    """Where the report of this scale goes, for dvc.yaml; the same as `Layout.report`."""
    stage_cores: Literal[1, "all"]
    """Cores for a stage that could do with many (parsing, training), for dvc.yaml: with 1, several of them run side
    by side; `all`, as GPUs and large data ask for, one after the other."""
    bodies: Bodies
    motions: Motions
    datasets: dict[Name, Dataset]
    crops: Crops
    parser: Parser
    pairs: Pairs
    import_weights: dict[Name, Initial]
    pretrain: dict[Name, Pretrain]
    awaiting: dict[Name, Pretrain] = {}
    """Runs that are declared but have data sets that this version does not read."""
    finetune: Finetune
    body_mesh: BodyMesh
    study: tuple[str, ...] = ()
    """Runs of the study of what makes the reference pay, the first the one that the others change a thing or two of."""
    study_datasets: tuple[str, ...] = ()
    """Data sets that the study alone needs."""
    figure_3b: Figure3b
    figure_4: Figure4
    report: Report

    def command(self, run: str | None = None) -> str:
        """What makes the results of this scale: of the headline, or of a run that may be the further tables' alone."""
        is_root = Path(self.params_file).parent == Path()
        if run is None or run in self.finetune.body_mesh.headline:
            return "dvc repro" if is_root else f"dvc repro {Path(self.params_file).with_name('dvc.yaml')}"
        return "make tables" if is_root else f"make tables SCALE={self.scale}"

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        checkpoints = set(self.import_weights) | set(self.pretrain)
        if both := set(self.import_weights) & set(self.pretrain):
            raise ValueError(f"{sorted(both)} stand both under import_weights and under pretrain")
        for name, run in self.pretrain.items():
            if unknown := set(run.without or ()) - set(self.datasets):
                raise ValueError(f"pretrain.{name}.without: {sorted(unknown)} are none of {sorted(self.datasets)}")
            for dataset in run.datasets:
                if dataset not in self.datasets:
                    raise ValueError(f"pretrain.{name}.datasets: {dataset!r} is not one of {sorted(self.datasets)}")
                if (pool := self.datasets[dataset].pool) != run.pool:
                    raise ValueError(f"pretrain.{name}.datasets: {dataset} is of pool {pool}, the run of {run.pool}")
                if run.masking == "human" and self.datasets[dataset].silhouettes == "none":
                    raise ValueError(
                        f"pretrain.{name}: masking is human, but {dataset} has no silhouettes; give the data set some "
                        f"(datasets.{dataset}.silhouettes: pgn), or the run masking: uniform"
                    )
            if run.init not in checkpoints - {name}:
                raise ValueError(f"pretrain.{name}.init: {run.init!r} is not one of {sorted(checkpoints - {name})}")
        for name in self.pretrain:
            chain = [name]
            while (init := self.pretrain[chain[-1]].init) in self.pretrain:
                if init in chain:
                    raise ValueError(f"pretrain.{name}.init: {' <- '.join([*chain, init])} never begins")
                chain.append(init)
        for key in ("train_dataset", "test_dataset"):
            if (dataset := getattr(self.body_mesh, key)) not in self.datasets:
                raise ValueError(f"body_mesh.{key}: {dataset!r} is not one of {sorted(self.datasets)}")
        if unknown := set(self.study_datasets) - set(self.datasets):
            raise ValueError(f"study_datasets: {sorted(unknown)} are none of {sorted(self.datasets)}")
        for name in self.awaiting:
            if not self.waits_for(name):
                raise ValueError(f"awaiting.{name}: all of its datasets are there; move it to ablations")
        for key, inits in (
            ("finetune.body_mesh.headline", self.finetune.body_mesh.headline),
            ("finetune.body_mesh.tables", self.finetune.body_mesh.tables),
            ("figure_3b.inits", self.figure_3b.inits),
            ("study", self.study),
        ):
            for init in inits:
                if init not in checkpoints:
                    raise ValueError(f"{key}: {init!r} is not one of {sorted(checkpoints)}")
        for name in self.figure_4.runs:
            kept = self.pretrain[name].snapshots if name in self.pretrain else ()
            if missing := sorted(set(self.figure_4.steps) - set(kept)):
                raise ValueError(f"figure_4.runs: {name!r} is no run with snapshots after {missing} steps")
        return self

    def dataset(self, name: str) -> Dataset:
        """A section of `datasets`; ValueError listing their names when there is none of that name."""
        try:
            return self.datasets[name]
        except KeyError:
            raise ValueError(
                f"{self.params_file} has no data set {name!r}; it has {', '.join(self.datasets)}"
            ) from None

    def crop_scale(self, dataset: str) -> float:
        """`crops.scale` of a data set: where nobody is, the box is the whole image, and beyond it is nothing."""
        return 1.0 if self.datasets[dataset].pool == "static" else self.crops.scale

    def waits_for(self, run: str) -> tuple[str, ...]:
        """Data sets of a run that this version does not read; empty for one it can train or does not know."""
        spec = self.awaiting.get(run)
        return () if spec is None else tuple(name for name in spec.datasets if name not in self.datasets)


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises ParamsError naming the file and each wrong key with what was found there.
    """
    path = Path(path)
    if not path.is_file():
        raise ParamsError(f"{path}: no such params file; run from the project root, or pass --params")
    try:
        content = yaml.load(path.read_text(), SAFE_LOADER)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected sections, found {type(content).__name__}")
    # Keys that start with `x-` hold YAML anchors for the entries below them.
    content = {key: value for key, value in content.items() if not str(key).startswith("x-")}
    # All of these are pre-training runs; only the DVC graph keeps them apart, so that plain `dvc repro` makes the
    # headline and `make tables` the rest.
    study = content.get("study") or ()
    for section in ("ablations", "keypoints", "study"):
        if isinstance(runs := content.pop(section, {}), dict) and isinstance(content.get("pretrain"), dict):
            if both := set(runs) & set(content["pretrain"]):
                raise ParamsError(f"{path}: {sorted(both)} stand under {section} and elsewhere as well")
            content["pretrain"] = {**content["pretrain"], **runs}
    content["study"] = list(study)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(_explain(path, error)) from error


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path}: {error.error_count()} wrong value(s):"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden":
            lines.append(
                f"  {where}: unknown parameter; remove it or correct its spelling (pipeline/run_spec.py lists all)"
            )
        elif item["type"] == "missing":
            lines.append(f"  {where}: missing")
        else:
            lines.append(f"  {where}: {item['msg']} (found {item['input']!r:.80})")
    return "\n".join(lines)


def fingerprint(*parts: object) -> str:
    """Hash of parameters and input hashes: names scratch folders, so that no run resumes another's."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.blake2b(json.dumps(plain, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


# Parameters that decide a result, by their place in params.yaml. An option that is not set is left out: results from
# before there was such an option are those without it.


def parser_parameters(params: Params) -> dict[str, Any]:
    return {"parser": _values(params.parser), "crops": _values(params.crops)}


def pretrain_parameters(name: str, params: Params) -> dict[str, Any]:
    run = _values(params.pretrain[name], "num_previews", "checkpoint_every")
    return {f"pretrain.{name}": run, "pairs": _values(params.pairs), "crops": _values(params.crops)}


def body_mesh_parameters(params: Params) -> dict[str, Any]:
    """Without the list of seeds: one more changes no other."""
    return {"body_mesh": _values(params.body_mesh, "seeds", "checkpoint_every")}


def _values(section: Section, *without: str) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(without), exclude_none=True)


# What a stage notes as `params_fingerprint` of its metrics, and the report compares with params.yaml as it is now.


def parser_fingerprint(params: Params) -> str:
    return fingerprint(parser_parameters(params))


def pretrain_fingerprint(name: str, params: Params) -> str:
    return fingerprint(pretrain_parameters(name, params))


def body_mesh_fingerprint(params: Params) -> str:
    return fingerprint(body_mesh_parameters(params))
