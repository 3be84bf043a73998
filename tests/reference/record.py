"""Records what the published code of CroCo and MAE computes, for tests/models/test_parity.py.

    PYTHONPATH=<checkout of naver/croco> python tests/reference/record.py croco_cosine
    PYTHONPATH=<checkout of naver/croco> python tests/reference/record.py croco_rope
    PYTHONPATH=<checkout of facebookresearch/mae>:<timm 0.3.2> python tests/reference/record.py mae

Weights and images are random; biases and gains are moved off 0 and 1, so that a swapped one shows. The numbers
depend on the seeds here alone: run again at the same commit, the files come out the same.
"""

import collections.abc
import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

SIDE, PATCH, BATCH = 16, 4, 2


def croco(pos_embed: str) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    from models.criterion import MaskedMSE

    from models.croco import CroCoNet

    kwargs = dict(
        img_size=SIDE, patch_size=PATCH, mask_ratio=0.75, enc_embed_dim=16, enc_depth=2, enc_num_heads=2,
        dec_embed_dim=8, dec_depth=2, dec_num_heads=2, pos_embed=pos_embed,
    )  # fmt: skip
    torch.manual_seed(7)
    network = shifted(CroCoNet(**kwargs))
    img1, img2 = torch.randn(2, BATCH, 3, SIDE, SIDE)
    with torch.no_grad():
        first, position, _ = network._encode_image(img1)
        second, _, _ = network._encode_image(img2)
        decoded = network._decoder(first, position, None, second, position)
        torch.manual_seed(11)
        visible, _, mask = network._encode_image(img1, do_mask=True)
    arrays = dict(
        img1=img1, img2=img2, mask=mask, enc_feat_img1_unmasked=first, enc_feat_img2_unmasked=second,
        enc_feat_img1_visible=visible, dec_feat_nomask=decoded,
    )  # fmt: skip
    for normalize in (0, 1):
        torch.manual_seed(11)
        arrays["out"], again, arrays["target"] = network(img1, img2)
        assert again.equal(mask)
        loss = MaskedMSE(norm_pix_loss=bool(normalize))(arrays["out"], mask, arrays["target"])
        everywhere = MaskedMSE(norm_pix_loss=bool(normalize), masked=False)(arrays["out"], mask, arrays["target"])
        arrays |= {f"loss_norm_pix_{normalize}": loss, f"loss_norm_pix_{normalize}_unmasked": everywhere}
        arrays |= gradients(network, loss, normalize)
    return network, {"croco_kwargs": kwargs}, arrays


def mae() -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    # what timm 0.3.2 and MAE import of older versions of torch and numpy
    sys.modules["torch._six"] = types.SimpleNamespace(container_abcs=collections.abc)  # type: ignore[assignment]
    np.float = float  # type: ignore[attr-defined]
    from models_mae import MaskedAutoencoderViT

    kwargs = dict(
        img_size=SIDE, patch_size=PATCH, embed_dim=16, depth=2, num_heads=2,
        decoder_embed_dim=8, decoder_depth=2, decoder_num_heads=2,
    )  # fmt: skip
    torch.manual_seed(17)
    network = shifted(MaskedAutoencoderViT(**kwargs, norm_layer=partial(nn.LayerNorm, eps=1e-6)))
    imgs = torch.randn(BATCH, 3, SIDE, SIDE)
    torch.manual_seed(19)
    noise = torch.rand(BATCH, network.patch_embed.num_patches)
    with torch.no_grad():
        torch.manual_seed(19)
        latent, mask, _ = network.forward_encoder(imgs, 0.75)
        everything, _, to_raster = network.forward_encoder(imgs, 0.0)
        patches = everything[:, 1:].gather(1, to_raster[:, :, None].expand(-1, -1, 16))
    arrays = dict(
        imgs=imgs, noise=noise, mask=mask, latent=latent,
        enc_feat_unmasked=torch.cat([everything[:, :1], patches], dim=1),
    )  # fmt: skip
    for normalize in (0, 1):
        network.norm_pix_loss = bool(normalize)
        torch.manual_seed(19)
        loss, arrays["pred"], again = network(imgs, 0.75)
        assert again.equal(mask)
        arrays[f"loss_norm_pix_{normalize}"] = loss
        arrays |= gradients(network, loss, normalize)
    return network, {"mae_kwargs": kwargs}, arrays


def shifted(network: nn.Module) -> Any:
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def gradients(network: nn.Module, loss: Tensor, normalize: int) -> dict[str, Tensor]:
    named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()))
    return {f"grad_norm_pix_{normalize}/{name}": gradient for name, gradient in zip(named, found, strict=True)}


def main() -> None:
    torch.set_num_threads(1)
    name = sys.argv[1]
    recorders = {"croco_cosine": partial(croco, "cosine"), "croco_rope": partial(croco, "RoPE100"), "mae": mae}
    network, facts, arrays = recorders[name]()
    folder = Path(__file__).parent / name
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / f"{name}.safetensors", metadata)
    np.savez_compressed(folder / f"{name}.npz", **{key: value.detach().numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    main()
