"""Random and published initial weights arrive as the same kind of checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

from models import catalog, checkpoints
from models.encoder import encoder_of
from pipeline.layout import Layout
from pipeline.run_spec import Initial, ParamsError
from pipeline.weights import import_weights

MINI = "croco_mini_patch8_64"


def initial(**changes) -> Initial:
    return Initial(**({"method": "croco", "source": "random", "network": MINI, "seed": 3} | changes))


def test_random_weights_depend_on_the_seed_alone(tmp_path):
    layout = Layout("test", tmp_path)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        import_weights(name, layout, initial(seed=seed))
    files = [(layout.checkpoint(name) / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_a_published_file_becomes_a_checkpoint_with_its_hash(tmp_path):
    layout = Layout("test", tmp_path)
    published = catalog.create(MINI, seed=11)
    folder = layout.raw("weights")
    folder.mkdir(parents=True)
    torch.save({"model": published.state_dict(), "croco_kwargs": published.config, "epoch": 7}, folder / "CroCo.pth")
    import_weights("croco", layout, initial(source="CroCo.pth"))
    loaded = checkpoints.load_croco(layout.checkpoint("croco"))
    pairs = zip(published.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    known = checkpoints.sha256_of(folder / "CroCo.pth"), "https://download.europe.naverlabs.com", "CC BY-NC-SA 4.0"
    for file in ("provenance.json", "README.md"):
        text = (layout.checkpoint("croco") / file).read_text()
        assert all(fact in text for fact in known)


def test_a_decoder_that_a_published_file_lacks_is_that_of_the_network_and_said_to_be_drawn(tmp_path):
    layout = Layout("test", tmp_path)
    published = catalog.create("mae_mini_patch8_64", seed=11)
    folder = layout.raw("weights")
    folder.mkdir(parents=True)
    encoder = encoder_of(published).state_dict()
    torch.save({"model": encoder}, folder / "encoder.pth")
    torch.save({"model": published.state_dict()}, folder / "whole.pth")
    for name, said in (("encoder", "the decoder is not in the file: drawn at random with seed 5"), ("whole", None)):
        import_weights(name, layout, initial(method="mae", network="mae_mini_patch8_64", source=f"{name}.pth", seed=5))
        card = (layout.checkpoint(name) / "README.md").read_text()
        assert said is None or said in card
        assert ("random" in card) == bool(said)
        provenance = json.loads((layout.checkpoint(name) / "provenance.json").read_text())
        assert ("decoder" in provenance) == bool(said)
        expected = catalog.create("mae_mini_patch8_64", seed=5 if said else 11).state_dict() | encoder
        loaded = checkpoints.load_mae(layout.checkpoint(name)).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in expected.items())
    with pytest.raises(ParamsError, match=r"encoder\.pth is not mae_small_patch16_224: cls_token has shape \(1, 1, 96"):
        import_weights("a", layout, initial(method="mae", network="mae_small_patch16_224", source="encoder.pth"))


def test_a_folder_of_ours_is_a_source_as_its_weights_are(tmp_path):
    layout = Layout("test", tmp_path)
    mine = layout.raw("weights") / "mine"
    checkpoints.save(mine, catalog.create("mae_mini_patch8_64", seed=11), provenance={"normalize": False, "run": "x"})
    for name, source in (("a", "mine"), ("b", "mine/model.safetensors")):
        import_weights(name, layout, initial(method="mae", network="mae_mini_patch8_64", source=source))
        assert checkpoints.fingerprint(layout.checkpoint(name)) == checkpoints.fingerprint(mine)
        provenance = json.loads((layout.checkpoint(name) / "provenance.json").read_text())
        assert provenance["sha256"] == checkpoints.fingerprint(mine)
        assert provenance["normalize"] is False and "run" not in provenance


def test_random_weights_have_a_card_that_says_so(tmp_path):
    layout = Layout("test", tmp_path)
    import_weights("a", layout, initial())
    card = (layout.checkpoint("a") / "README.md").read_text()
    assert card.startswith("# a, scale test\n\nInitial weights, drawn at random with seed 3.")
    assert 'load_croco("data/test/checkpoints/a")' in card


def test_an_absent_or_different_file_is_named(tmp_path):
    layout = Layout("test", tmp_path)
    with pytest.raises(ParamsError, match=r"import_weights.croco: .*CroCo.pth is not there. .*SOURCE.md"):
        import_weights("croco", layout, initial(source="CroCo.pth"))
    folder = layout.raw("weights")
    folder.mkdir(parents=True)
    published = catalog.create(MINI)
    torch.save({"model": published.state_dict(), "croco_kwargs": published.config}, folder / "CroCo.pth")
    shapes = r"mask_token has shape \(1, 1, 64\) there and \(1, 1, 256\) here; img_size is 64 there and 224 here; patch"
    with pytest.raises(ParamsError, match=rf"CroCo\.pth is not croco_small_patch16_224: {shapes}"):
        import_weights("croco", layout, initial(source="CroCo.pth", network="croco_small_patch16_224"))
