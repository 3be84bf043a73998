"""CroCo and MAE: positions, masking and the errors a caller can make."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed

from models import catalog
from models.completion import (
    Completion,
    PatchWeights,
    completed_image,
    completion_loss,
    mean_error,
    patch_errors,
)
from models.croco import CroCo, CroCoEncoder
from models.mae import MAE
from models.masking import uniform_mask
from models.patches import IMAGE_MEAN, IMAGE_STD, normalize_images, patchify, unpatchify, visible_indices
from models.position import interpolate_positions, rotary_table, rotate, sine_cosine_2d


def images(seed: int, batch: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["cosine", "RoPE100"])
def mini(request) -> CroCo:
    config = {**catalog.create("croco_mini_patch8_64").config, "pos_embed": request.param}
    model = CroCo(**config)
    model.reset_parameters(torch.Generator().manual_seed(0))
    return model.eval()


def test_rotary_attention_depends_on_relative_positions_only():
    table = rotary_table(16, (6, 6), 100.0).view(2, 6, 6, 16)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def score(a: tuple[int, int], b: tuple[int, int]) -> float:
        return (rotate(query, table[:, a[0], a[1]]) * rotate(key, table[:, b[0], b[1]])).sum().item()

    assert score((1, 2), (3, 1)) == pytest.approx(score((2, 4), (4, 3)), abs=1e-4)
    assert score((1, 2), (3, 1)) != pytest.approx(score((2, 1), (1, 3)), abs=1e-3)


def test_sine_cosine_channels_encode_the_column_first():
    table = sine_cosine_2d(16, (2, 3)).view(2, 3, 16)
    assert table[0, :, 8:].equal(table[0, :1, 8:].expand(3, -1))  # same row, same second half
    assert table[:, 1, :8].equal(table[:1, 1, :8].expand(2, -1))  # same column, same first half
    assert not table[0, 1].equal(table[1, 0])


def test_interpolated_positions_keep_the_class_token_and_the_own_grid():
    table = sine_cosine_2d(8, (4, 4), class_token=True)
    assert interpolate_positions(table, (4, 4), (4, 4)) is table
    assert interpolate_positions(table, (4, 4), (6, 6))[0].equal(table[0])


@pytest.mark.parametrize("new_grid", [(16, 16), (24, 24), (15, 13), (7, 7), (14, 20)])
def test_positions_are_interpolated_as_timm_does(new_grid):
    table = torch.cat([torch.ones(1, 8), sine_cosine_2d(8, (14, 14))])
    theirs = resample_abs_pos_embed(table[None], list(new_grid), interpolation="bicubic", antialias=False)[0]
    ours = interpolate_positions(table, (14, 14), new_grid)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    for mode in ({"mode": "bilinear"}, {"mode": "bicubic", "align_corners": True}):
        image = table[1:].view(1, 14, 14, 8).permute(0, 3, 1, 2)
        other = torch.nn.functional.interpolate(image, new_grid, **mode).flatten(2)[0].T
        assert not torch.allclose(ours[1:], other, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 8]))
def test_unpatchify_undoes_patchify(batch, rows, columns, patch):
    image = torch.randn(batch, 3, rows * patch, columns * patch)
    assert unpatchify(patchify(image, patch), patch, (rows, columns)).equal(image)


@torch.no_grad()
def test_hidden_patches_do_not_influence_the_prediction(mini):
    target, reference = images(1), images(2)
    hidden = uniform_mask(2, 64, 0.75, torch.Generator().manual_seed(3))
    pixels = unpatchify(hidden[:, :, None].expand(-1, -1, 192).float(), 8, (8, 8)).bool()
    scrambled = torch.where(pixels, images(4), target)
    first, second = mini(target, reference, hidden), mini(scrambled, reference, hidden)
    torch.testing.assert_close(first.prediction, second.prediction)
    other = mini(target, images(5), hidden)
    assert not torch.allclose(first.prediction, other.prediction)


@torch.no_grad()
def test_visible_tokens_come_in_raster_order(mini):
    everything = mini.patch_embed(images(1), None)
    index = torch.tensor([[3, 10, 63], [0, 1, 2]])
    some = mini.patch_embed(images(1), index)
    torch.testing.assert_close(some, everything.gather(1, index[:, :, None].expand(-1, -1, 96)))


@torch.no_grad()
def test_who_has_the_indices_of_visible_patches_may_give_them(mini):
    mask = uniform_mask(2, mini.num_patches, 0.75, torch.Generator().manual_seed(2))
    index = visible_indices(mask, 2, mini.num_patches)
    pair = images(3), images(4)
    assert mini(*pair, mask, index).prediction.equal(mini(*pair, mask).prediction)
    mae = catalog.create("mae_mini_patch8_64", seed=0).eval()
    assert mae(pair[0], mask, index).prediction.equal(mae(pair[0], mask).prediction)


def test_a_sample_is_predicted_alike_in_any_batch(mini):
    target, reference = images(1, 4), images(2, 4)
    hidden = uniform_mask(4, 64, 0.75, torch.Generator().manual_seed(3))
    together = mini(target, reference, hidden).prediction
    alone = mini(target[2:3], reference[2:3], hidden[2:3]).prediction
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_of_the_true_patches_is_zero_and_the_image_comes_back(normalize):
    image = images(0)
    truth = patchify(image, 8)
    hidden = uniform_mask(2, 64, 0.75, torch.Generator().manual_seed(0))
    perfect = truth
    if normalize:
        perfect = (truth - truth.mean(-1, keepdim=True)) / torch.sqrt(truth.var(-1, keepdim=True) + 1e-6)
    assert completion_loss(perfect, image, hidden, normalize).item() < 1e-10
    returned = completed_image(Completion(perfect, hidden), image, 8, normalize)
    torch.testing.assert_close(returned, image, atol=1e-4, rtol=1e-4)


def test_the_loss_counts_hidden_patches_only():
    image, prediction = images(0), torch.randn(2, 64, 192, generator=torch.Generator().manual_seed(1))
    hidden = uniform_mask(2, 64, 0.5, torch.Generator().manual_seed(0))
    errors = patch_errors(prediction, image)
    torch.testing.assert_close(completion_loss(prediction, image, hidden), errors[hidden].mean())


def test_patches_count_by_what_they_show():
    generator = torch.Generator().manual_seed(0)
    image, prediction = images(0), torch.randn(2, 64, 192, generator=generator)
    hidden, human = uniform_mask(2, 64, 0.5, generator), torch.rand(2, 64, generator=generator) < 0.3
    errors = patch_errors(prediction, image, normalize=False)
    plain = completion_loss(prediction, image, hidden, normalize=False)
    torch.testing.assert_close(mean_error(errors, hidden, PatchWeights(), human), plain)
    torch.testing.assert_close(mean_error(errors, hidden, PatchWeights(visible=1), human), errors.mean())
    of_all = completion_loss(prediction, image, hidden, normalize=False, weights=PatchWeights(visible=1))
    torch.testing.assert_close(of_all, errors.mean())
    of_person = mean_error(errors, hidden, PatchWeights(background=0), human)
    torch.testing.assert_close(of_person, errors[hidden & human].sum() / hidden.sum())
    nobody = torch.zeros_like(human)
    torch.testing.assert_close(mean_error(errors, hidden, PatchWeights(background=0), nobody), plain)


@pytest.mark.parametrize("name", catalog.names())
def test_every_named_size_has_consistent_shapes(name):
    with torch.device("meta"):
        config = (catalog._CROCO | catalog._MAE)[name]
        model = (CroCo if name.startswith("croco") else MAE)(**config)
        side, patch = model.img_size, model.patch_size
        image, hidden = torch.empty(1, 3, side, side), None
        assert model.encode(image, hidden).shape == (1, (side // patch) ** 2, model.width)
    assert name.endswith(f"patch{patch}_{side}")


def test_the_base_network_has_the_published_size():
    with torch.device("meta"):
        croco = CroCo()
    encoder = sum(p.numel() for n, p in croco.named_parameters() if n.startswith(("enc_", "patch_embed")))
    total = sum(p.numel() for p in croco.parameters())
    assert round(encoder / 1e6, 2) == 85.65
    assert round((total - encoder) / 1e6, 2) == 34.43
    assert len(croco.state_dict()) == 349


def test_the_same_seed_draws_the_same_weights():
    first, again, other = (catalog.create("croco_mini_patch8_64", seed) for seed in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert tensor.equal(again.state_dict()[name])
    assert not first.prediction_head.weight.equal(other.prediction_head.weight)


def test_pixels_are_normalised_with_imagenet_statistics():
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 2, 2, 3)
    expected = (torch.tensor([0, 128, 255]) / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    torch.testing.assert_close(normalize_images(pixels)[0, :, 0, 0], expected)


@pytest.mark.parametrize("name", ["croco_mini_patch8_64", "mae_mini_patch8_64"])
def test_mixed_precision_trains_with_finite_gradients(name):
    model = catalog.create(name)
    target, reference = images(0), images(1)
    hidden = uniform_mask(2, 64, 0.75, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        completion = model(target, reference, hidden) if name.startswith("croco") else model(target, hidden)
        loss = completion_loss(completion.prediction, target, hidden)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_image_of_another_size_is_refused_with_both_sizes(mini):
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 64\).*\(2, 3, 32, 32\)"):
        mini.encode(images(0, size=32))


def test_an_integer_image_is_refused(mini):
    with pytest.raises(ValueError, match="normalised floats"):
        mini.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_rows_hiding_different_numbers_of_patches_are_refused(mini):
    hidden = torch.zeros(2, 64, dtype=torch.bool)
    hidden[0, :10], hidden[1, :11] = True, True
    with pytest.raises(ValueError, match="same number of patches"):
        mini(images(0), images(1), hidden)


def test_a_mask_for_another_grid_is_refused(mini):
    with pytest.raises(ValueError, match=r"\(2, 64\)"):
        mini(images(0), images(1), torch.zeros(2, 16, dtype=torch.bool))


@pytest.mark.parametrize(
    "arguments", [{"img_size": 60}, {"enc_num_heads": 5}, {"pos_embed": "learned"}, {"pos_embed": "RoPEx"}]
)
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=r"multiple|divide|pos_embed"):
        CroCoEncoder(**{"img_size": 64, **arguments})
