"""Checkpoints: published files of CroCo, MAE and PGN, and this project's own, become modules again; a
trained encoder becomes a file that plain `timm` loads.

Own format, one directory: `model.safetensors`, `config.json` (architecture and the arguments that
rebuild the module) and `provenance.json` (whatever the writer knows about how it came to be); a `README.md`
says the same to people."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.patches import IMAGE_MEAN, IMAGE_STD
from models.pgn_tensorflow import pgn_from_tensorflow
from models.published import croco_arguments, mae_arguments, resample_positions
from models.weight_files import (
    CheckpointError,
    Undrawn,
    WeightFile,
    load_state,
    read_weight_file,
    sha256_of,
    write_safetensors,
)

if TYPE_CHECKING:
    from models.croco import CroCo
    from models.mae import MAE
    from models.pgn import PGN

__all__ = [
    "CheckpointError",
    "export_timm",
    "fingerprint",
    "has_decoder",
    "load",
    "load_croco",
    "load_mae",
    "load_pgn",
    "load_pretrained",
    "pgn_from_tensorflow",
    "read_config",
    "save",
    "sha256_of",
]

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
CARD = "README.md"

ARCHITECTURES = {
    "croco": "models.croco.CroCo",
    "keypoint_head": "models.heads.keypoints.KeypointHead",
    "mae": "models.mae.MAE",
    "pgn": "models.pgn.PGN",
}
"""Class of each architecture. Loaded when asked for: who parses people need not wait for timm."""


def save(
    directory: str | Path,
    module: nn.Module,
    *,
    provenance: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> None:
    """Write a module as a checkpoint directory; an existing one is replaced as a whole.

    Args:
        directory: where to; parents are made.
        module: one of `ARCHITECTURES` (rebuilt by `load`), or any module if `config` is given.
        provenance: JSON values, such as git revision, parameter hash, manifest hash, seed.
        config: more facts for config.json; for modules outside `ARCHITECTURES` it must have the key
            `architecture`, and the reader rebuilds the module itself.
        card: README.md of the directory, for those who meet the weights elsewhere.

    Raises:
        ValueError: a module outside `ARCHITECTURES` without a `config` naming its architecture.
    """
    directory = Path(directory)
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    known = {kind: name for name, kind in ARCHITECTURES.items()}.get(path)
    described: dict[str, Any] = {"format": 1}
    if known is not None:
        described |= {"architecture": known, "kwargs": module.config}
        if known not in ("pgn", "keypoint_head"):
            described |= {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD}
    described |= config or {}
    if "architecture" not in described:
        raise ValueError(
            f"a {type(module).__name__} is none of {sorted(ARCHITECTURES)}; give config={{'architecture': ...}}"
        )

    # No two processes write one checkpoint, so what lies there was left by one that was killed.
    aside, replaced = (directory.with_name(f".{directory.name}.{what}") for what in ("unfinished", "replaced"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write_safetensors(aside / WEIGHTS, module.state_dict())
        for name, content in (("config", described), ("provenance", dict(provenance))):
            text = json.dumps(content, indent=2, sort_keys=True)
            (aside / f"{name}.json").write_text(text + "\n")
        if card is not None:
            (aside / CARD).write_text(card)
        shutil.rmtree(replaced, ignore_errors=True)
        if directory.exists():
            directory.replace(replaced)
            aside.replace(directory)
            shutil.rmtree(replaced)
        else:
            aside.replace(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load(directory: str | Path) -> nn.Module:
    """Rebuild the module of a checkpoint directory, in training mode, on the CPU.

    Raises:
        FileNotFoundError: no checkpoint there.
        CheckpointError: unknown architecture, damaged files, or weights that do not fit the config.
    """
    directory = Path(directory)
    config = read_config(directory)
    if config["architecture"] not in ARCHITECTURES:
        raise CheckpointError(
            f"{directory} is a {config['architecture']!r}, which models.checkpoints.load does not "
            f"build; it builds {sorted(ARCHITECTURES)}"
        )
    module = _build(config["architecture"], config.get("kwargs", {}), directory)
    load_state(module, read_weight_file(directory / WEIGHTS).state, directory)
    return module


def read_config(directory: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint directory; has at least the key `architecture`.

    Raises:
        FileNotFoundError: no checkpoint there.
        CheckpointError: config.json cannot be read.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {directory}: {path.name} is missing")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise CheckpointError(f"{path} names no architecture")
    return config


def fingerprint(directory: str | Path) -> str:
    """SHA-256 of a checkpoint's weights, to be recorded by whatever is measured with them."""
    return sha256_of(Path(directory) / WEIGHTS)


def load_croco(path: str | Path, img_size: int | None = None) -> CroCo:
    """Load CroCo from a naver/croco file (v1 or v2, cosine or RoPE) or from our own directory.

    The arguments come from `croco_kwargs`, else from the constructor call in upstream's training
    arguments (`args.model`), else they are the defaults, which are those of CroCo v1.

    Args:
        path: `.pth`, `.safetensors` or a checkpoint directory. Other top-level keys are ignored.
        img_size: build for another image side, px; position tables are resampled (bicubic).

    Raises:
        FileNotFoundError: nothing there.
        CheckpointError: damaged, unsafe, or another architecture; names the first difference.
    """
    if directory := _own_directory(path):
        kwargs, state = _own(directory, "croco")
        return _croco(kwargs, state, path, img_size)
    return _croco_of(read_weight_file(path), img_size)


def _croco_of(file: WeightFile, img_size: int | None) -> CroCo:
    kwargs, hint = croco_arguments(file)
    return _croco(kwargs, file.state, file.path, img_size, hint)


def _croco(
    kwargs: dict[str, Any], state: dict[str, Tensor], source: str | Path, img_size: int | None, hint: str = ""
) -> CroCo:
    model: CroCo = _build("croco", kwargs if img_size is None else {**kwargs, "img_size": img_size}, source)
    if img_size is not None:
        resample_positions(state, ("enc_pos_embed", "dec_pos_embed"), model.grid, class_token=False)
    load_state(model, state, source, hint)
    return model


def load_mae(
    path: str | Path,
    img_size: int | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
) -> MAE:
    """Load MAE from a facebookresearch/mae file or from our own directory.

    Sizes are read off the weights, except the number of heads, which no shape tells: it comes from
    `kwargs` if the file has them (as our own directories do), else from the arguments, else heads are
    64 wide (encoder; 80 in ViT-H) and 32 wide (decoder) as in all published models. The released files
    without decoder get a fresh one of the published size, with weights from a fixed seed, and a warning is logged.

    Args:
        path: `.pth`, `.safetensors` or a checkpoint directory. Other top-level keys are ignored.
        img_size: build for another image side, px; position tables are resampled (bicubic).
        num_heads, decoder_num_heads: where the file does not tell.

    Raises:
        FileNotFoundError: nothing there.
        CheckpointError: damaged, unsafe, or another architecture; names the first difference.
    """
    if directory := _own_directory(path):
        kwargs, state = _own(directory, "mae")
        return _mae(kwargs, state, path, img_size)
    return _mae_of(read_weight_file(path), img_size, num_heads, decoder_num_heads)


def has_decoder(path: str | Path) -> bool:
    """Whether an MAE file has the decoder that `load_mae` would else draw at random."""
    directory = _own_directory(path)
    return "decoder_embed.weight" in read_weight_file(directory / WEIGHTS if directory else path).state


def _mae_of(
    file: WeightFile, img_size: int | None, num_heads: int | None = None, decoder_num_heads: int | None = None
) -> MAE:
    kwargs = mae_arguments(file.state, file.path)
    asked = {"num_heads": num_heads, "decoder_num_heads": decoder_num_heads}
    told = {**file.facts.get("kwargs", {}), **file.facts.get("mae_kwargs", {})}
    for given in ({name: value for name, value in asked.items() if value is not None}, told):
        kwargs |= {name: given[name] for name in kwargs.keys() & given.keys()}
    if missing := [name for name, value in kwargs.items() if value is None]:
        raise CheckpointError(f"{file.path} does not tell its number of heads; give {', '.join(missing)}")
    return _mae(kwargs, file.state, file.path, img_size)


def _mae(kwargs: dict[str, Any], state: dict[str, Tensor], source: str | Path, img_size: int | None) -> MAE:
    model: MAE = _build("mae", kwargs if img_size is None else {**kwargs, "img_size": img_size}, source)
    if img_size is not None:
        resample_positions(state, ("pos_embed", "decoder_pos_embed"), model.grid, class_token=True)
    if "decoder_embed.weight" not in state:
        logger.warning("%s has no decoder: a fresh one is drawn (seed 0)", source)
        model.reset_parameters(torch.Generator().manual_seed(0))
        fresh = model.state_dict()
        state = {**{k: v for k, v in fresh.items() if k.startswith(("decoder_", "mask_token"))}, **state}
    load_state(model, state, source)
    return model


def load_pgn(path: str | Path) -> PGN:
    """Load PGN from our own directory, or published sizes from a file of `pgn_from_tensorflow`.

    Raises:
        FileNotFoundError: nothing there.
        CheckpointError: damaged, unsafe, or another architecture; names the first difference.
    """
    directory = _own_directory(path)
    kwargs, state = _own(directory, "pgn") if directory else ({}, read_weight_file(path).state)
    model: PGN = _build("pgn", kwargs, path)
    load_state(model, state, path)
    return model


def load_pretrained(path: str | Path, img_size: int | None = None) -> CroCo | MAE:
    """Load CroCo or MAE, whichever `path` holds; see `load_croco` and `load_mae`.

    Raises:
        CheckpointError: neither of the two.
    """
    if directory := _own_directory(path):
        kind = read_config(directory)["architecture"]
        if kind not in ("croco", "mae"):
            raise CheckpointError(f"{path} holds neither CroCo nor MAE but {kind!r}")
        return load_croco(path, img_size) if kind == "croco" else load_mae(path, img_size)
    file = read_weight_file(path)
    if "enc_norm.weight" in file.state:
        return _croco_of(file, img_size)
    if "cls_token" in file.state:
        return _mae_of(file, img_size)
    raise CheckpointError(
        f"{path} holds neither CroCo nor MAE: it has neither enc_norm.weight nor cls_token; it begins with "
        f"{next(iter(file.state))}"
    )


def export_timm(checkpoint: str | Path | nn.Module, path: str | Path) -> dict[str, Any]:
    """Write the encoder of a checkpoint as a safetensors file for plain `timm`.

    ```python
    options = export_timm("checkpoints/croco_body", "croco_body.safetensors")
    timm.create_model(**options)  # or type in what the file's metadata says under "timm"
    ```

    Args:
        checkpoint: CroCo with cosine positions, or MAE: a module, a file or a directory.
        path: the file to write. Of a file or directory, what is known of the checkpoint goes along as `<path>.md`.

    Returns:
        All arguments of `timm.create_model`, `checkpoint_path` included. For ViT-B CroCo these are
        `vit_base_patch16_224`, class_token=False, global_pool="avg", fc_norm=False, num_classes=0.

    Raises:
        ValueError: rotary positions or another module, for which timm has no counterpart; a file of another name.
        CheckpointError: the timm that is installed computes other features from the file, which is not kept.
    """
    module = checkpoint if isinstance(checkpoint, nn.Module) else load_pretrained(checkpoint)
    from models.timm_export import timm_file, write_card

    options = timm_file(module, path)
    if not isinstance(checkpoint, nn.Module):
        directory = _own_directory(checkpoint)
        weights = directory / WEIGHTS if directory else Path(checkpoint)
        card = directory / CARD if directory else None
        write_card(Path(path), options, _called(directory) if directory else weights.name, sha256_of(weights), card)
    return options


def _own_directory(path: str | Path) -> Path | None:
    """The checkpoint directory that `path` is, or whose `model.safetensors` it is; else None."""
    path = Path(path)
    if path.is_dir():
        return path
    return path.parent if path.name == WEIGHTS and (path.parent / "config.json").is_file() else None


def _called(directory: Path) -> str:
    """What a checkpoint directory says that it is of, as `<run>@<step>` where that is not its end; else its name."""
    path = directory / "provenance.json"
    made = json.loads(path.read_text()) if path.is_file() else {}
    run = str(made.get("run", directory.resolve().name))
    return f"{run}@{made['steps']}" if "steps" in made else run


def _own(directory: Path, architecture: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = read_config(directory)
    if config["architecture"] != architecture:
        raise CheckpointError(f"{directory} holds a {config['architecture']!r}, not a {architecture!r}")
    state = read_weight_file(directory / WEIGHTS).state
    return dict(config.get("kwargs", {})), state


def _build(architecture: str, kwargs: Mapping[str, Any], source: str | Path) -> Any:
    """The module, whose weights are whatever lay in memory."""
    place, name = ARCHITECTURES[architecture].rsplit(".", 1)
    kind = getattr(importlib.import_module(place), name)
    # What upstream's files, and older ones of this project, say of training, not of the network.
    sizes = {key: value for key, value in kwargs.items() if key != "mask_ratio"}
    try:
        with Undrawn():
            return kind(**sizes)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source} asks for a {name} that cannot be built: {error}") from error
