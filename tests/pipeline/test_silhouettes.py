"""Silhouettes: patch masks as exact counts, bits that survive packing, specks that go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.silhouettes import centre, drop_specks, load_parser, pack, parse_silhouettes, patch_mask, unpack

masks = arrays.arrays(bool, (24, 24))


@given(mask=arrays.arrays(bool, st.integers(0, 200)))
def test_bits_come_back_from_packing(mask: np.ndarray) -> None:
    packed = pack(mask)
    assert len(packed) == (mask.size + 7) // 8
    assert np.array_equal(unpack(packed, mask.size), mask)


def test_unpacking_another_number_of_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes do not hold 16 bits"):
        unpack(b"abc", 16)


@given(mask=masks, threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_a_patch_is_human_when_more_than_the_threshold_of_it_is(mask: np.ndarray, threshold: float) -> None:
    patches = patch_mask(mask, 8, threshold)
    assert patches.shape == (9,)
    for number, human in enumerate(patches):
        row, column = divmod(number, 3)
        share = mask[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].mean()
        assert human == (share > threshold)


@pytest.mark.parametrize(("shape", "patch"), [((24, 16), 8), ((20, 20), 8)])
def test_a_silhouette_that_has_no_patch_grid_is_refused(shape: tuple[int, int], patch: int) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        patch_mask(np.zeros(shape, bool), patch)


def test_the_centre_is_what_the_network_sees() -> None:
    mask = np.zeros((80, 80), bool)
    mask[8:72, 8:72] = True
    assert centre(mask, 64).shape == (64, 64) and centre(mask, 64).all()
    with pytest.raises(ValueError, match="96 px does not fit into a crop of 80 px"):
        centre(mask, 96)


@given(mask=masks)
def test_dropping_specks_only_removes_and_keeps_the_largest_piece(mask: np.ndarray) -> None:
    kept = drop_specks(mask)
    assert not (kept & ~mask).any()
    assert kept.any() == mask.any()
    assert np.array_equal(drop_specks(kept), kept)


def test_specks_go_and_limbs_stay() -> None:
    mask = np.zeros((80, 80), bool)
    mask[10:60, 30:50] = True  # 1000 px
    mask[65:75, 30:40] = True  # 100 px: a foot behind a chair
    mask[2:4, 2:4] = True  # 4 px
    kept = drop_specks(mask)
    assert kept[12, 32] and kept[70, 35] and not kept[2:4, 2:4].any()


def test_a_piece_that_touches_at_a_corner_is_no_speck_nor_is_one_of_the_least_share() -> None:
    mask = np.zeros((80, 80), bool)
    mask[10:60, 30:50] = True  # 1000 px, as large as the largest piece may be for 50 px to stay
    mask[65:70, 30:40] = True
    mask[70:77, 60:67] = True  # 49 px
    assert drop_specks(mask)[65:70, 30:40].all() and not drop_specks(mask)[70:77, 60:67].any()
    mask[60, 50] = True
    assert drop_specks(mask)[60, 50]


class Threshold:
    fingerprint = "bright"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.where(images.mean(axis=3) > 128, 5, 0)


def test_any_class_but_background_is_the_person() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, 4:8, 4:8] = 255
    silhouettes = parse_silhouettes(Threshold(), images)
    assert silhouettes.dtype == bool and silhouettes.sum() == 16 and not silhouettes[1].any()


def test_a_parser_that_gives_another_size_is_refused() -> None:
    class Half(Threshold):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images)[:, ::2, ::2]

    with pytest.raises(ValueError, match="labels of shape"):
        parse_silhouettes(Half(), np.zeros((1, 16, 16, 3), np.uint8))


@pytest.fixture(scope="module")
def small_pgn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from models.checkpoints import save
    from models.pgn import PGN

    folder = tmp_path_factory.mktemp("parser") / "pgn"
    torch.manual_seed(0)
    save(folder, PGN(width=0.0625, depths=(1, 1, 1, 1)), provenance={})
    return folder


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def test_a_pgn_checkpoint_becomes_a_parser(small_pgn: Path) -> None:
    parser, images = load_parser(small_pgn), noise(3)
    labels = parser(images)
    assert labels.shape == (3, 40, 40) and labels.max() < 20
    assert np.array_equal(parser(images[1:2])[0], labels[1])
    assert len(parser.fingerprint) == 64


def test_crops_are_brought_to_the_size_that_the_parser_was_trained_on(small_pgn: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from models.checkpoints import load_pgn, save
    from models.pgn import mean_logits, person_labels

    model, images = load_pgn(small_pgn).eval(), noise(2)
    save(tmp_path / "pgn", model, provenance={}, config={"input_size": 80})
    expected = person_labels(mean_logits(model, torch.from_numpy(images), scales=(2.0,), flip=False)).numpy()
    assert np.array_equal(load_parser(tmp_path / "pgn")(images), expected)
    assert not np.array_equal(load_parser(small_pgn)(images), expected)


@pytest.mark.gpu
def test_a_gpu_finds_what_a_processor_does_for_many_threads_at_once(
    small_pgn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = noise(16)
    before = torch.cuda.memory_allocated()
    parser = load_parser(small_pgn)
    assert torch.cuda.memory_allocated() > before
    with ThreadPoolExecutor(8) as pool:
        found = np.concatenate(list(pool.map(parser, np.split(images, 8))))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (found == load_parser(small_pgn)(images)).mean() > 0.98
