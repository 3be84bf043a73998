"""Heat-maps of keypoints: their geometry, the loss, and the head that predicts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models import catalog, checkpoints
from models.heads.keypoints import COVERED, KeypointHead, draw_heatmaps, heatmap_loss, peaks


@given(size=st.sampled_from([64, 96, 224]), x=st.floats(0, 0.999), y=st.floats(0, 0.999))
def test_the_highest_pixel_of_a_target_holds_the_keypoint(size: int, x: float, y: float) -> None:
    point = torch.tensor([[x, y]], dtype=torch.float64) * size
    (peak,) = peaks(draw_heatmaps(point, size))
    assert (peak - point[0]).abs().max() <= 0.5 + 1e-6


def test_a_target_is_a_gaussian_of_eight_pixels_at_224_and_of_the_same_share_at_any_size() -> None:
    (large,) = draw_heatmaps(torch.tensor([[100.5, 60.5]]), 224)
    assert large[60, 100] == 1
    assert large[60, 108] == pytest.approx(torch.tensor(-0.5).exp().item())  # one deviation to the right
    assert large[60 - 16, 100] == pytest.approx(torch.tensor(-2.0).exp().item())  # two up
    (small,) = draw_heatmaps(torch.tensor([[32.0, 32.0]]), 64)
    assert small.mean().item() == pytest.approx(COVERED, rel=1e-3)


def test_the_loss_is_binary_cross_entropy_weighted_by_confidence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 13, 32, 32, generator=generator)
    keypoints = torch.rand(2, 13, 3, generator=generator) * torch.tensor([32.0, 32.0, 1.0])
    expected = [
        keypoints[b, k, 2] * F.binary_cross_entropy(logits[b, k].sigmoid(), draw_heatmaps(keypoints[b, k, :2], 32))
        for b in range(2)
        for k in range(13)
    ]
    assert heatmap_loss(logits, keypoints).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_missing_keypoints_neither_count_nor_teach() -> None:
    logits = torch.randn(2, 13, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    keypoints = torch.full((2, 13, 3), 16.0)
    keypoints[..., 2] = 1.0
    keypoints[0, 3, 2] = keypoints[1, :, 2] = 0.0
    elsewhere = keypoints.clone()
    elsewhere[0, 3, :2] = elsewhere[1, :, :2] = -400.0
    assert torch.equal(heatmap_loss(logits, keypoints), heatmap_loss(logits, elsewhere))
    (gradient,) = torch.autograd.grad(heatmap_loss(logits, keypoints), logits)
    assert not gradient[0, 3].any()
    assert not gradient[1].any()
    assert gradient[0, 2].any()


def test_the_loss_of_a_batch_is_the_mean_of_its_halves_whatever_is_missing() -> None:
    logits = torch.randn(4, 13, 32, 32, generator=torch.Generator().manual_seed(0))
    keypoints = torch.rand(4, 13, 3, generator=torch.Generator().manual_seed(1)) * 32
    keypoints[..., 2] = (torch.rand(4, 13, generator=torch.Generator().manual_seed(2)) < 0.6).float()
    halves = [heatmap_loss(logits[part], keypoints[part]) for part in (slice(0, 2), slice(2, 4))]
    assert heatmap_loss(logits, keypoints).item() == pytest.approx(sum(halves).item() / 2, rel=1e-6)  # type: ignore[union-attr]


def test_the_head_lays_each_patch_where_it_lies_and_starts_at_the_mean_of_the_targets() -> None:
    head = KeypointHead(width=8, patch_size=4, grid=3)
    heat = head(torch.zeros(1, 9, 8)).sigmoid()
    assert heat.shape == (1, 13, 12, 12)
    assert torch.allclose(heat, torch.tensor(COVERED), rtol=1e-4)
    tokens = torch.zeros(1, 9, 8)
    tokens[0, 5] = torch.arange(8.0)  # second row, third column
    changed = (head(tokens).sigmoid() != heat).any(dim=1)[0]
    assert changed[4:8, 8:12].any()
    changed[4:8, 8:12] = False
    assert not changed.any()


def test_how_large_tokens_are_is_nothing_to_the_head() -> None:
    head = KeypointHead(width=8, patch_size=4, grid=3)
    tokens = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(head(tokens), head(7 * tokens), atol=1e-5)
    assert not torch.allclose(head(tokens), head(-tokens), atol=1e-3)


def test_a_head_lies_in_the_checkpoint_of_its_network_and_both_load(tmp_path: Path) -> None:
    croco = catalog.create("croco_mini_patch8_64", seed=1)
    head = KeypointHead(croco.width, croco.patch_size, croco.grid[0])  # type: ignore[union-attr]
    checkpoints.save(tmp_path / "run", croco, provenance={})
    checkpoints.save(tmp_path / "run" / "keypoint_head", head, provenance={})
    found, again = checkpoints.load(tmp_path / "run" / "keypoint_head"), checkpoints.load_croco(tmp_path / "run")
    assert isinstance(found, KeypointHead)
    assert torch.equal(found.linear.weight, head.linear.weight)
    assert torch.equal(again.patch_embed.proj.weight, croco.state_dict()["patch_embed.proj.weight"])
