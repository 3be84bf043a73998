"""What the files of naver/croco and facebookresearch/mae say about the network they hold, and how their
position tables fit another image size. Facts about the files: README.MD of naver/croco and README.md of
facebookresearch/mae."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.position import interpolate_positions, square_grid
from models.weight_files import CheckpointError, WeightFile


def croco_arguments(file: WeightFile) -> tuple[dict[str, Any], str]:
    """Constructor arguments, and a hint for the message should the weights not fit them."""
    if "croco_kwargs" in file.facts:
        return dict(file.facts["croco_kwargs"]), ""
    call = getattr(file.facts.get("args"), "model", None)
    if call is None:
        return {}, "The file names no sizes (croco_kwargs), so those of CroCo v1 were assumed."
    # Upstream evaluates this string; here only a call of its network with literal keyword arguments is accepted.
    try:
        expression = ast.parse(call, mode="eval").body
        if not isinstance(expression, ast.Call) or ast.unparse(expression.func) != "CroCoNet" or expression.args:
            raise ValueError
        return {str(k.arg): ast.literal_eval(k.value) for k in expression.keywords}, ""
    except (SyntaxError, TypeError, ValueError):
        told = f"Its args.model = {call!r} is no CroCoNet(...) with plain numbers"
        return {}, f"{told}, so the sizes of CroCo v1 were assumed."


def mae_arguments(state: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """Constructor arguments of MAE that the shapes tell; heads are None where they cannot be known."""
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        if name not in state:
            first = next(iter(state))
            raise CheckpointError(
                f"{source} is no MAE checkpoint: it has no {name}; it begins with {first}, of shape "
                f"{tuple(state[first].shape)}"
            )
    width, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    try:
        side, _ = square_grid(state["pos_embed"].shape[1] - 1)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    sizes: dict[str, Any] = {
        "img_size": side * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": _count(state, "blocks."),
        "num_heads": {768: 12, 1024: 16, 1280: 16, 384: 6}.get(width),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
    }
    if "decoder_embed.weight" in state:
        decoder_width = state["decoder_embed.weight"].shape[0]
        sizes |= {
            "decoder_embed_dim": decoder_width,
            "decoder_depth": _count(state, "decoder_blocks."),
            "decoder_num_heads": 16 if decoder_width == 512 else None,
        }
    return sizes


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})


def resample_positions(
    state: dict[str, Tensor], names: tuple[str, ...], grid: tuple[int, int], class_token: bool
) -> None:
    """Bring position tables to `grid` in place; a table that is no square grid is left to load_state."""
    for name in names:
        if name in state:
            try:
                square = square_grid(state[name].shape[-2] - class_token)
            except ValueError:
                continue
            state[name] = interpolate_positions(state[name], square, grid)
