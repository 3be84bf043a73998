"""PGN against the recorded TensorFlow network, TensorFlow's border rules, and the test procedure."""

import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints import pgn_from_tensorflow
from models.pgn import CLASSES, PGN, Parsing, mean_logits, parse, person_labels, person_margin, preprocess
from models.tensorflow_like import max_pool_same, mean_pool_same, resize_bilinear, same_padding

SIZES = st.integers(1, 70)


def small(**options) -> PGN:
    model = PGN(**{"width": 1 / 16, "depths": (1, 1, 2, 1), **options})
    model.reset_parameters(torch.Generator().manual_seed(0))
    return model.eval()


def seeded_variable(key: str, shape: list[int]) -> np.ndarray:
    """The recorded network's weights, as its README prescribes them."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    match key.rpartition("/")[2]:
        case "weights":
            return noise * np.float32(np.sqrt(1 / np.prod(shape[:3])))
        case "gamma":
            return 1 + noise * np.float32(0.1)
        case "moving_variance":
            return 1 + np.abs(noise) * np.float32(0.2)
        case _:
            return noise * np.float32(0.1)


@pytest.mark.slow  # 165 M seeded weights, about 20 s
def test_pgn_agrees_with_the_published_tensorflow_network(shared):
    described = json.loads((shared / "parity/pgn/variables.json").read_text())["variables"]
    variables = {v["name"]: seeded_variable(v["name"], v["shape"]) for v in described}
    assert len(variables) == 626
    assert variables[described[0]["name"]].flat[0] == pytest.approx(described[0]["first"], rel=1e-6)
    state = pgn_from_tensorflow({**variables, "conv1/weights/Momentum": np.zeros(1)})
    del variables
    with torch.device("meta"):
        model = PGN().eval()
    model.load_state_dict(state, assign=True)
    with np.load(shared / "parity/pgn/pgn_s200x264.npz") as recorded:
        image = preprocess(torch.from_numpy(recorded["image_rgb_uint8"]))
        assert image.permute(0, 2, 3, 1).numpy() == pytest.approx(recorded["data_bgr_minus_mean"])
        with torch.no_grad():
            output = model(image)
        names = ["parsing_fc", "parsing_rf_fc", "edge_fc", "edge_rf_fc", *(f"fc1_edge_res{i}" for i in (5, 4, 3))]
        for name, logits in zip(names, [*output.parsing, *output.edge], strict=True):
            expected = recorded[name]
            error = np.abs(logits.permute(0, 2, 3, 1).numpy() - expected).max()
            assert error <= 5e-5 * np.abs(expected).max(), name


def test_every_variable_of_the_published_network_has_its_place(shared):
    described = json.loads((shared / "parity/pgn/variables.json").read_text())["variables"]
    state = pgn_from_tensorflow({v["name"]: np.broadcast_to(np.float32(0), v["shape"]) for v in described})
    with torch.device("meta"):
        expected = PGN().state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == {n: tuple(t.shape) for n, t in expected.items()}


def test_a_variable_of_another_network_is_refused():
    with pytest.raises(ValueError, match="fc6/weights"):
        pgn_from_tensorflow({"fc6/weights": np.zeros((1, 1, 2, 2))})


@given(SIZES, st.sampled_from([1, 3, 7]), st.sampled_from([1, 2]))
def test_same_padding_gives_the_rounded_up_size_and_the_larger_half_behind(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


@settings(deadline=None, max_examples=30)
@given(SIZES, SIZES, st.sampled_from([10, 20, 60]))
def test_mean_pooling_leaves_the_padding_out(height, width, window):
    image = torch.randn(1, 2, height, width)
    pooled = mean_pool_same(image, window)
    top, left = same_padding(height, window, window)[0], same_padding(width, window, window)[0]
    for i in range(pooled.shape[2]):
        for j in range(pooled.shape[3]):
            rows = slice(max(i * window - top, 0), (i + 1) * window - top)
            columns = slice(max(j * window - left, 0), (j + 1) * window - left)
            torch.testing.assert_close(
                pooled[:, :, i, j], image[:, :, rows, columns].mean(dim=(2, 3)), atol=1e-5, rtol=1e-5
            )


def test_maximum_pooling_ignores_the_padding():
    assert max_pool_same(-torch.ones(1, 1, 4, 5), 3, 2).eq(-1).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 30))
def test_resizing_samples_at_multiples_of_the_size_ratio(size, new_size):
    line = torch.randn(size)
    resized = resize_bilinear(line.view(1, 1, 1, size), (1, new_size)).flatten()
    position = np.float32(np.arange(new_size, dtype=np.float32) * (np.float32(size) / np.float32(new_size)))
    np.testing.assert_allclose(resized.numpy(), np.interp(position, np.arange(size), line.numpy()), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("size", "grid"), [((64, 64), (8, 8)), ((65, 96), (9, 12)), ((9, 17), (2, 3))])
def test_a_small_pgn_takes_any_image_size(size, grid):
    output = small()(torch.zeros(2, 3, *size))
    assert [tuple(x.shape) for x in output.parsing] == [(2, 20, *grid)] * 2
    assert [tuple(x.shape) for x in output.edge] == [(2, 1, *grid)] * 5


def test_every_weight_of_pgn_is_trained():
    model = small().train()
    output: Parsing = model(torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    sum(x.square().mean() for x in [*output.parsing, *output.edge]).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.25)])
def test_parsing_of_the_mirrored_image_is_the_mirrored_parsing(scales):
    model = small()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, 40, 33, 3), generator=generator, dtype=torch.uint8)
    labels = parse(model, images, scales)
    mirrored = parse(model, images.flip(2), scales)
    exchange = torch.arange(20, dtype=torch.uint8)
    exchange[14:20] = torch.tensor([15, 14, 17, 16, 19, 18], dtype=torch.uint8)
    assert labels.shape == (1, 40, 33) and labels.dtype == torch.uint8
    assert mirrored.flip(2).equal(exchange[labels.long()])


def test_a_person_is_found_where_background_is_less_likely_than_all_parts_together():
    logits = torch.randn(1, 20, 30, 30, generator=torch.Generator().manual_seed(2)) * 3
    logits[:, 0] += 6
    chance = logits.double().softmax(dim=1)
    labels = person_labels(logits)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels > 0, chance[:, 0] < 0.5)
    assert torch.equal(labels[labels > 0].long(), (chance[:, 1:].argmax(dim=1) + 1)[labels > 0])
    assert (labels > 0).sum() > (logits.argmax(dim=1) > 0).sum() > 0
    torch.testing.assert_close(person_margin(logits).sigmoid(), 1 - chance[:, 0].float())


def test_logits_are_means_and_not_sums():
    # A sum over stages and scales would sharpen the softmax, and so move where a person begins.
    model = small()
    images = torch.randint(0, 256, (1, 64, 64, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        first, refined = model(preprocess(images)).parsing
    expected = resize_bilinear((first + refined) / 2, (64, 64))
    torch.testing.assert_close(mean_logits(model, images, (1.0,), flip=False), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mean_logits(model, images, (1.0, 1.0), flip=False), expected, atol=1e-3, rtol=1e-3)
    assert (parse(model, images, (1.0,), flip=False) == expected.argmax(dim=1)).float().mean() > 0.99


def test_heads_may_be_narrower_than_the_resnet_and_pool_over_other_windows():
    plain, other = small(), small(head_width=1 / 32, windows=(4, 2))
    assert plain.config["head_width"] == 1 / 16
    assert other.res5[0].branch2c.conv.weight.shape == plain.res5[0].branch2c.conv.weight.shape
    assert other.parsing.logits.weight.shape == (20, 16, 3, 3)
    assert other.parsing.pyramid.fuse.weight.shape == (16, 16 + 2 * 16, 3, 3)
    assert {name: value.shape for name, value in PGN(**other.config).state_dict().items()} == {
        name: value.shape for name, value in other.state_dict().items()
    }


def test_images_of_floats_and_vanishing_scales_are_refused():
    with pytest.raises(ValueError, match="uint8 RGB"):
        parse(small(), torch.zeros(1, 8, 8, 3))
    with pytest.raises(ValueError, match="leaves nothing"):
        parse(small(), torch.zeros(1, 8, 8, 3, dtype=torch.uint8), scales=(0.1,))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        small()(torch.zeros(1, 8, 8, 3))


def test_the_classes_are_those_of_cihp():
    assert len(CLASSES) == 20
    assert CLASSES[14:16] == ("left-arm", "right-arm")
