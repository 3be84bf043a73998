"""The networks against numbers recorded from the published implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.completion import completion_loss, patch_errors
from models.croco import CroCo
from models.mae import MAE
from models.patches import patchify
from models.position import sine_cosine_2d

TOLERANCE = dict(atol=1e-5, rtol=1e-5)


def read_fixture(path: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """(facts, recorded arrays, state dict) of one parity fixture."""
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz")) as arrays:
        recorded = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return facts, recorded, load_file(path.with_suffix(".safetensors"))


def assert_gradients_match(module: torch.nn.Module, facts: dict, recorded: dict, norm_pix: int) -> None:
    gradients = {name: p.grad for name, p in module.named_parameters()}
    norms = facts["grad_norms"][str(norm_pix)]
    assert set(gradients) == set(norms)
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, abs=1e-6, rel=1e-5), name
    prefix = f"grad_norm_pix_{norm_pix}/"
    full = {key.removeprefix(prefix): g for key, g in recorded.items() if key.startswith(prefix)}
    assert len(full) == 7
    for name, gradient in full.items():
        torch.testing.assert_close(gradients[name], gradient, **TOLERANCE)


@pytest.fixture(scope="module")
def croco(shared: Path) -> tuple[CroCo, dict, dict[str, Tensor]]:
    facts, recorded, weights = read_fixture(shared / "parity/croco/croco_cosine_a")
    model = CroCo(**facts["croco_kwargs"]).eval()
    torch.testing.assert_close(sine_cosine_2d(48, (4, 4)), weights["enc_pos_embed"], atol=0, rtol=0)
    model.load_state_dict(weights)
    return model, facts, recorded


@pytest.fixture(scope="module")
def mae(shared: Path) -> tuple[MAE, dict, dict[str, Tensor]]:
    facts, recorded, weights = read_fixture(shared / "parity/mae/mae_a")
    model = MAE(**facts["kwargs"]).eval()
    torch.testing.assert_close(model.state_dict()["pos_embed"], weights["pos_embed"], atol=0, rtol=0)
    model.load_state_dict(weights)
    return model, facts, recorded


@torch.no_grad()
def test_croco_features_and_prediction_agree_with_upstream(croco):
    model, _, r = croco
    first, second = model.encode(r["img1"]), model.encode(r["img2"])
    torch.testing.assert_close(first, r["enc_feat_img1_unmasked"], **TOLERANCE)
    torch.testing.assert_close(second, r["enc_feat_img2_unmasked"], **TOLERANCE)
    torch.testing.assert_close(model.encode(r["img1"], r["mask"]), r["enc_feat_img1_visible"], **TOLERANCE)
    torch.testing.assert_close(model.decode(first, second), r["dec_feat_nomask"], **TOLERANCE)
    completion = model(r["img1"], r["img2"], r["mask"])
    torch.testing.assert_close(completion.prediction, r["out"], **TOLERANCE)
    assert completion.hidden.equal(r["mask"])
    torch.testing.assert_close(patchify(r["img1"], 16), r["target"], atol=0, rtol=0)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_croco_loss_and_gradients_agree_with_upstream(croco, norm_pix):
    model, facts, r = croco
    model.zero_grad()
    prediction = model(r["img1"], r["img2"], r["mask"]).prediction
    loss = completion_loss(prediction, r["img1"], r["mask"], normalize=bool(norm_pix))
    torch.testing.assert_close(loss, r[f"loss_norm_pix_{norm_pix}"], **TOLERANCE)
    everywhere = patch_errors(prediction, r["img1"], normalize=bool(norm_pix)).mean()
    torch.testing.assert_close(everywhere, r[f"loss_norm_pix_{norm_pix}_unmasked"], **TOLERANCE)
    loss.backward()
    assert_gradients_match(model, facts, r, norm_pix)


@torch.no_grad()
def test_mae_features_and_prediction_agree_with_upstream(mae):
    model, _, r = mae
    hidden = r["mask"].bool()
    torch.testing.assert_close(model.encode_with_class_token(r["imgs"]), r["enc_feat_unmasked"], **TOLERANCE)
    assert model.encode(r["imgs"]).equal(model.encode_with_class_token(r["imgs"])[:, 1:])
    # upstream keeps visible tokens in the order of their noise, this code in raster order
    to_raster = r["noise"].argsort(dim=1)[:, :4].argsort(dim=1)
    patches = r["latent"][:, 1:].gather(1, to_raster[:, :, None].expand(-1, -1, 48))
    latent = model.encode_with_class_token(r["imgs"], hidden)
    torch.testing.assert_close(latent[:, :1], r["latent"][:, :1], **TOLERANCE)
    torch.testing.assert_close(latent[:, 1:], patches, **TOLERANCE)
    torch.testing.assert_close(model(r["imgs"], hidden).prediction, r["pred"], **TOLERANCE)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_mae_loss_and_gradients_agree_with_upstream(mae, norm_pix):
    model, facts, r = mae
    hidden = r["mask"].bool()
    model.zero_grad()
    loss = completion_loss(model(r["imgs"], hidden).prediction, r["imgs"], hidden, bool(norm_pix))
    torch.testing.assert_close(loss, r[f"loss_norm_pix_{norm_pix}"], **TOLERANCE)
    loss.backward()
    assert_gradients_match(model, facts, r, norm_pix)
