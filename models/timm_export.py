"""A trained encoder as a file that plain `timm` loads: the same weights under timm's names, and the
arguments of `timm.create_model` that fit them.

    python -m models.timm_export data/mini/checkpoints/croco_body croco_body.safetensors
"""

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from models.croco import CroCoEncoder
from models.encoder import encoder_of
from models.mae import MAEEncoder
from models.weight_files import CheckpointError, write_safetensors

TOLERANCE = 1e-4
"""Of features, as a share of the largest: the order of additions makes some 1e-6."""


def timm_file(module: nn.Module, path: str | Path) -> dict[str, Any]:
    """Write the encoder of `module`; see `models.checkpoints.export_timm`.

    Raises:
        ValueError: rotary positions or another module, for which timm has no counterpart; a file of another name.
        CheckpointError: the timm that is installed computes other features from the file, which is not kept.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"timm tells by a file's name how to read it; call it {path.with_suffix('.safetensors')}")
    state = module.state_dict()
    options: dict[str, Any] = {"model_name": "vit_base_patch16_224", "num_classes": 0}
    if isinstance(module, CroCoEncoder):
        if module.config["pos_embed"] != "cosine":
            raise ValueError(
                f"timm has no ViT with the {module.config['pos_embed']} positions of this CroCo; "
                "only cosine CroCo and MAE can be exported"
            )
        # Without fc_norm=False timm would move the final norm behind the pooling.
        options |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
        renamed = {"enc_pos_embed": "pos_embed", "enc_blocks.": "blocks.", "enc_norm.": "norm."}
        state["enc_pos_embed"] = state["enc_pos_embed"][None]
        sizes = {name.removeprefix("enc_"): value for name, value in module.config.items()}
    elif isinstance(module, MAEEncoder):
        renamed = {"pos_embed": "pos_embed", "blocks.": "blocks.", "norm.": "norm.", "cls_token": "cls_token"}
        sizes = module.config
    else:
        raise ValueError(f"only encoders of CroCo and MAE can be exported, not {type(module).__name__}")
    renamed["patch_embed."] = "patch_embed."
    published = dict(img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4)
    options |= {name: sizes[name] for name in published if sizes[name] != published[name]}
    exported = {
        new + name.removeprefix(old): tensor
        for name, tensor in state.items()
        for old, new in renamed.items()
        if name.startswith(old)
    }
    aside = path.with_name(f".{path.stem}.unchecked.safetensors")
    try:
        write_safetensors(aside, exported, {"timm": json.dumps(options, sort_keys=True)})
        _check({**options, "checkpoint_path": str(aside)}, module)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return {**options, "checkpoint_path": str(path)}


@torch.no_grad()
def _check(options: dict[str, Any], module: nn.Module) -> None:
    """Patch tokens of a picture of noise, by timm from the file and by the module."""
    encoder = encoder_of(module).eval()
    image = torch.randn(1, 3, encoder.img_size, encoder.img_size, generator=torch.Generator().manual_seed(0))
    loaded: Any = timm.create_model(**options).eval()
    ours, theirs = encoder.encode(image), loaded.forward_features(image)[:, -encoder.num_patches :]
    difference = float((theirs - ours).abs().max() / ours.abs().max())
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"timm {timm.__version__} computes other features from this encoder: they differ by {difference:.1%} of "
            "the largest. Nothing was written; install the version of requirements.txt."
        )


def write_card(path: Path, options: dict[str, Any], source: str, sha256: str, card: Path | None) -> None:
    """`<path>.md`: whose encoder the file at `path` is, how timm loads it, and the card of the checkpoint if any."""
    call = timm_call({**options, "checkpoint_path": path.name})
    parts = [
        f"# {path.name}",
        f"The encoder of `{source}` (SHA-256 of its weights `{sha256}`) for plain timm:",
        f"```python\n{call}\n```",
        f"Checked when it was written: timm {timm.__version__} computes the features that the checkpoint does.",
    ]
    if card is not None and card.is_file():
        parts += ["What is known of these weights:", "---", card.read_text().rstrip()]
    path.with_name(f"{path.name}.md").write_text("\n\n".join(parts) + "\n")


def timm_call(options: dict[str, Any]) -> str:
    return f"timm.create_model({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def main() -> None:
    # models.checkpoints imports this module
    from models.checkpoints import export_timm

    parser = argparse.ArgumentParser(
        prog="python -m models.timm_export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="directory, or a published CroCo or MAE weight file")
    parser.add_argument("file", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args()
    try:
        options = export_timm(arguments.checkpoint, arguments.file)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(timm_call(options))


if __name__ == "__main__":
    main()
