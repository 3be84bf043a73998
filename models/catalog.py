"""Named network sizes: the published ones, one for a single GPU and the mini one for two CPU cores.
A name tells family, size, patch and input side, as in timm: `croco_base_patch16_224`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from models.croco import CroCo
    from models.mae import MAE

# Heads of the mini sizes are 32 wide: CPU attention is fastest at multiples of the vector width.
_CROCO: dict[str, dict[str, Any]] = {
    "croco_mini_patch8_64": dict(
        img_size=64, patch_size=8, enc_embed_dim=96, enc_depth=4, enc_num_heads=3,
        dec_embed_dim=64, dec_depth=2, dec_num_heads=2,
    ),
    "croco_mini_shallowdecoder_patch8_64": dict(
        img_size=64, patch_size=8, enc_embed_dim=96, enc_depth=4, enc_num_heads=3,
        dec_embed_dim=64, dec_depth=1, dec_num_heads=2,
    ),
    "croco_mini_deepdecoder_patch8_64": dict(
        img_size=64, patch_size=8, enc_embed_dim=96, enc_depth=4, enc_num_heads=3,
        dec_embed_dim=64, dec_depth=4, dec_num_heads=2,
    ),
    "croco_mini_widedecoder_patch8_64": dict(
        img_size=64, patch_size=8, enc_embed_dim=96, enc_depth=4, enc_num_heads=3,
        dec_embed_dim=128, dec_depth=2, dec_num_heads=4,
    ),
    "croco_small_patch16_224": dict(
        enc_embed_dim=384, enc_depth=12, enc_num_heads=6,
        dec_embed_dim=256, dec_depth=8, dec_num_heads=8,
    ),
    # CroCo.pth, the paper's initialisation: the defaults of CroCo.
    "croco_base_patch16_224": {},
    # CroCo_V2_ViTBase_SmallDecoder, CroCo_V2_ViTBase_BaseDecoder, CroCo_V2_ViTLarge_BaseDecoder
    "croco_v2_base_patch16_224": dict(pos_embed="RoPE100"),
    "croco_v2_base_basedecoder_patch16_224": dict(
        pos_embed="RoPE100", dec_embed_dim=768, dec_depth=12, dec_num_heads=12
    ),
    "croco_v2_large_basedecoder_patch16_224": dict(
        pos_embed="RoPE100", enc_embed_dim=1024, enc_depth=24, enc_num_heads=16,
        dec_embed_dim=768, dec_depth=12, dec_num_heads=12,
    ),
}  # fmt: skip

_MAE: dict[str, dict[str, Any]] = {
    "mae_mini_patch8_64": dict(
        img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=3,
        decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2,
    ),
    "mae_small_patch16_224": dict(
        embed_dim=384, depth=12, num_heads=6,
        decoder_embed_dim=256, decoder_depth=8, decoder_num_heads=8,
    ),
    "mae_base_patch16_224": {},
    "mae_large_patch16_224": dict(embed_dim=1024, depth=24, num_heads=16),
    "mae_huge_patch14_224": dict(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
}  # fmt: skip


def names(family: Literal["croco", "mae"] | None = None) -> list[str]:
    """Names `create` knows: those of a family, or all."""
    return [*(_CROCO if family != "mae" else ()), *(_MAE if family != "croco" else ())]


def create(name: str, seed: int = 0) -> CroCo | MAE:
    """Build a network by name with fresh weights that depend on `seed` alone.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    # Whoever checks names needs no tensor, and torch takes seconds to load.
    import torch

    from models.croco import CroCo
    from models.mae import MAE
    from models.weight_files import Undrawn

    if name not in _CROCO and name not in _MAE:
        raise ValueError(f"no network is called {name!r}; known: {', '.join(names())}")
    with Undrawn():
        model: CroCo | MAE = CroCo(**_CROCO[name]) if name in _CROCO else MAE(**_MAE[name])
    model.reset_parameters(torch.Generator().manual_seed(seed))
    return model
