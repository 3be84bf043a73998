"""Any pre-trained encoder under one interface: what downstream tasks build on (CroCo-Human Sec. 3.4),
without knowing whether it was pre-trained by CroCo or by MAE."""

from pathlib import Path

from torch import nn

from models.checkpoints import load_pretrained
from models.croco import CroCo, CroCoEncoder
from models.mae import MAE, MAEEncoder
from models.weight_files import Undrawn, load_state


def encoder_of(
    source: str | Path | nn.Module, img_size: int | None = None, drop_path: float = 0.0
) -> CroCoEncoder | MAEEncoder:
    """The encoder of a pre-trained network, its own module with its own copy of the weights.

    Calling it gives the patch tokens (B, N, C) of ImageNet-normalised images (B, 3, img_size, img_size); the class
    token of MAE is not among them. It says its `img_size` and `patch_size` in px, `grid` (rows, columns),
    `num_patches` N and `width` C. The decoder is left behind, so that an optimiser sees only what fine-tuning trains.

    Args:
        source: checkpoint directory, published weight file, or a CroCo or MAE module.
        img_size: side of the input, px, if other than in pre-training (files and directories only).
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        FileNotFoundError: nothing at `source`.
        ValueError: `source` holds neither CroCo nor MAE, or `img_size` was given with a module.
    """
    if isinstance(source, nn.Module):
        if img_size not in (None, getattr(source, "img_size", None)):
            raise ValueError("img_size can be changed only while loading from a file or directory")
        module = source
    else:
        module = load_pretrained(source, img_size)
    with Undrawn():
        encoder = _encoder_like(module, drop_path)
    wanted = encoder.state_dict().keys()
    state = module.state_dict()
    load_state(encoder, {name: state[name] for name in wanted}, "the pre-trained network")
    return encoder


def _encoder_like(module: nn.Module, drop_path: float) -> CroCoEncoder | MAEEncoder:
    if isinstance(module, CroCoEncoder):
        return CroCoEncoder(
            **{name: value for name, value in module.config.items() if name in _CROCO_ENCODER}, drop_path=drop_path
        )
    if isinstance(module, MAEEncoder):
        return MAEEncoder(
            **{name: value for name, value in module.config.items() if not name.startswith("decoder_")},
            drop_path=drop_path,
        )
    raise ValueError(f"{type(module).__name__} has no encoder known here; give {CroCo.__name__} or {MAE.__name__}")


_CROCO_ENCODER = frozenset(
    ("img_size", "patch_size", "enc_embed_dim", "enc_depth", "enc_num_heads", "mlp_ratio", "pos_embed")
)
