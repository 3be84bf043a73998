"""The networks against numbers recorded from the published implementations: see tests/reference/*/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoints import load_croco, load_mae
from models.completion import completion_loss, patch_errors
from models.croco import CroCo
from models.mae import MAE
from models.patches import patchify

REFERENCE = Path(__file__).parents[1] / "reference"
TOLERANCE = dict(atol=1e-5, rtol=1e-5)


def recorded_beside(weights: Path) -> dict[str, Tensor]:
    with np.load(weights.with_suffix(".npz")) as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def assert_gradients_match(module: torch.nn.Module, recorded: dict[str, Tensor], norm_pix: int) -> None:
    prefix = f"grad_norm_pix_{norm_pix}/"
    expected = {key.removeprefix(prefix): g for key, g in recorded.items() if key.startswith(prefix)}
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert set(gradients) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, **TOLERANCE)


@pytest.fixture(scope="module", params=["croco_cosine", "croco_rope"])
def croco(request: pytest.FixtureRequest) -> tuple[CroCo, dict[str, Tensor]]:
    path = REFERENCE / f"{request.param}/{request.param}.safetensors"
    return load_croco(path).eval(), recorded_beside(path)


@pytest.fixture(scope="module")
def mae() -> tuple[MAE, dict[str, Tensor]]:
    path = REFERENCE / "mae/mae.safetensors"
    return load_mae(path).eval(), recorded_beside(path)


def test_a_fresh_network_has_the_position_tables_of_upstream(croco, mae):
    for model, _ in (croco, mae):
        fresh = type(model)(**model.config)
        for name, table in model.named_buffers():
            assert fresh.get_buffer(name).equal(table), name


@torch.no_grad()
def test_croco_features_and_prediction_agree_with_upstream(croco):
    model, r = croco
    first, second = model.encode(r["img1"]), model.encode(r["img2"])
    torch.testing.assert_close(first, r["enc_feat_img1_unmasked"], **TOLERANCE)
    torch.testing.assert_close(second, r["enc_feat_img2_unmasked"], **TOLERANCE)
    torch.testing.assert_close(model.encode(r["img1"], r["mask"]), r["enc_feat_img1_visible"], **TOLERANCE)
    torch.testing.assert_close(model.decode(first, second), r["dec_feat_nomask"], **TOLERANCE)
    completion = model(r["img1"], r["img2"], r["mask"])
    torch.testing.assert_close(completion.prediction, r["out"], **TOLERANCE)
    assert completion.hidden.equal(r["mask"])
    torch.testing.assert_close(patchify(r["img1"], 4), r["target"], atol=0, rtol=0)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_croco_loss_and_gradients_agree_with_upstream(croco, norm_pix):
    model, r = croco
    model.zero_grad()
    prediction = model(r["img1"], r["img2"], r["mask"]).prediction
    loss = completion_loss(prediction, r["img1"], r["mask"], normalize=bool(norm_pix))
    torch.testing.assert_close(loss, r[f"loss_norm_pix_{norm_pix}"], **TOLERANCE)
    everywhere = patch_errors(prediction, r["img1"], normalize=bool(norm_pix)).mean()
    torch.testing.assert_close(everywhere, r[f"loss_norm_pix_{norm_pix}_unmasked"], **TOLERANCE)
    loss.backward()
    assert_gradients_match(model, r, norm_pix)


@torch.no_grad()
def test_mae_features_and_prediction_agree_with_upstream(mae):
    model, r = mae
    hidden = r["mask"].bool()
    torch.testing.assert_close(model.encode_with_class_token(r["imgs"]), r["enc_feat_unmasked"], **TOLERANCE)
    assert model.encode(r["imgs"]).equal(model.encode_with_class_token(r["imgs"])[:, 1:])
    # upstream keeps visible tokens in the order of their noise, this code in raster order
    to_raster = r["noise"].argsort(dim=1)[:, :4].argsort(dim=1)
    patches = r["latent"][:, 1:].gather(1, to_raster[:, :, None].expand(-1, -1, 16))
    latent = model.encode_with_class_token(r["imgs"], hidden)
    torch.testing.assert_close(latent[:, :1], r["latent"][:, :1], **TOLERANCE)
    torch.testing.assert_close(latent[:, 1:], patches, **TOLERANCE)
    torch.testing.assert_close(model(r["imgs"], hidden).prediction, r["pred"], **TOLERANCE)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_mae_loss_and_gradients_agree_with_upstream(mae, norm_pix):
    model, r = mae
    hidden = r["mask"].bool()
    model.zero_grad()
    loss = completion_loss(model(r["imgs"], hidden).prediction, r["imgs"], hidden, bool(norm_pix))
    torch.testing.assert_close(loss, r[f"loss_norm_pix_{norm_pix}"], **TOLERANCE)
    loss.backward()
    assert_gradients_match(model, r, norm_pix)
