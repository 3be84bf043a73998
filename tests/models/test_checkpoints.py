"""Checkpoints: published layouts, our own directories, timm, and files that are not what they should be."""

import argparse
import json
import logging
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from models import catalog, timm_export
from models.checkpoints import (
    CheckpointError,
    export_timm,
    fingerprint,
    load,
    load_croco,
    load_mae,
    load_pgn,
    load_pretrained,
    read_config,
    save,
)
from models.croco import CroCo
from models.encoder import encoder_of
from models.mae import MAE
from models.pgn import PGN
from models.weight_files import write_safetensors

TINY = dict(
    img_size=32, patch_size=8, enc_embed_dim=32, enc_depth=2, enc_num_heads=2,
    dec_embed_dim=16, dec_depth=1, dec_num_heads=2,
)  # fmt: skip
TINY_MAE = dict(
    img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2,
    decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2,
)  # fmt: skip


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


@pytest.fixture(params=["cosine", "RoPE100"])
def croco(request) -> CroCo:
    return CroCo(**TINY, pos_embed=request.param)


def test_a_v2_file_with_croco_kwargs_and_other_keys_loads(croco, tmp_path):
    kwargs = {**TINY, "pos_embed": croco.config["pos_embed"], "mask_ratio": 0.9}
    torch.save({"model": croco.state_dict(), "croco_kwargs": kwargs, "epoch": 3, "optimizer": {}}, tmp_path / "a.pth")
    assert same_weights(load_croco(tmp_path / "a.pth"), croco)


@pytest.mark.parametrize("reader", [load, load_croco])
def test_a_mask_ratio_in_an_older_config_is_passed_over(croco, tmp_path, reader):
    save(tmp_path / "a", croco, provenance={})
    config = read_config(tmp_path / "a")
    assert "mask_ratio" not in config["kwargs"]
    config["kwargs"]["mask_ratio"] = 0.9
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    assert same_weights(reader(tmp_path / "a"), croco)


def test_sizes_are_read_from_upstreams_training_arguments(croco, tmp_path):
    call = f"CroCoNet({', '.join(f'{k}={v!r}' for k, v in croco.config.items())})"
    torch.save({"model": croco.state_dict(), "args": argparse.Namespace(model=call, lr=0.1)}, tmp_path / "a.pth")
    assert same_weights(load_croco(tmp_path / "a.pth"), croco)


@pytest.mark.parametrize(
    "call",
    [
        "CroCoNet(img_size=__import__('os').mkdir('made'))",
        "mae_vit_base_patch16",
        "AsymmetricCroCo3DStereo(pos_embed='RoPE100', output_mode='pts3d', depth_mode=('exp', -inf, inf))",
        "CroCoDownstreamMonocularEncoder()",
        "",
    ],
)
def test_training_arguments_of_another_kind_are_not_run_and_the_first_difference_is_named(
    croco, tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": croco.state_dict(), "args": argparse.Namespace(model=call)}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"mask_token has shape .* args\.model = .* CroCo v1 were assumed"
    ) as said:
        load_croco(tmp_path / "a.pth")
    assert repr(call) in str(said.value)
    assert not (tmp_path / "made").exists()


def test_a_v1_file_without_sizes_is_the_published_network(tmp_path):
    weights = catalog.create("croco_base_patch16_224").state_dict()
    torch.save({"model": weights}, tmp_path / "CroCo.pth")
    assert (
        load_croco(tmp_path / "CroCo.pth")
        .state_dict()["enc_blocks.11.attn.qkv.weight"]
        .equal(weights["enc_blocks.11.attn.qkv.weight"])
    )


def test_the_reference_material_beside_the_checkout_loads_with_the_sizes_in_its_json(shared):
    assert load_croco(shared / "parity/croco/croco_cosine_a.safetensors").config["enc_num_heads"] == 4
    assert load_mae(shared / "parity/mae/mae_a.safetensors").config["decoder_num_heads"] == 4


def test_position_tables_follow_another_image_size(croco, tmp_path):
    save(tmp_path / "a", croco, provenance={})
    larger = load_croco(tmp_path / "a", img_size=48)
    assert larger.num_patches == 36
    assert larger.encode(torch.zeros(1, 3, 48, 48)).shape == (1, 36, 32)
    assert larger.enc_blocks[0].attn.qkv.weight.equal(croco.enc_blocks[0].attn.qkv.weight)


def test_a_full_mae_file_loads(tmp_path):
    model = MAE(**TINY_MAE)
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "a.pth")
    loaded = load_mae(tmp_path / "a.pth", num_heads=4, decoder_num_heads=2)
    assert same_weights(loaded, model)
    assert loaded.config["num_heads"] == 4
    with pytest.raises(CheckpointError, match=r"give num_heads, decoder_num_heads"):
        load_mae(tmp_path / "a.pth")
    torch.save({"model": model.state_dict(), "kwargs": model.config}, tmp_path / "told.pth")
    assert load_mae(tmp_path / "told.pth", num_heads=4).config == model.config, "the file knows better"


def test_an_encoder_only_mae_file_gets_a_fresh_decoder_and_says_so(tmp_path, caplog):
    encoder = encoder_of(MAE(**TINY_MAE))
    torch.save({"model": encoder.state_dict()}, tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        first, again = (load_mae(tmp_path / "a.pth", num_heads=2) for _ in range(2))
    assert "no decoder" in caplog.text
    assert same_weights(first, again)
    assert same_weights(encoder_of(first), encoder)


@pytest.mark.parametrize("kind", ["croco", "mae", "pgn"])
def test_a_saved_module_is_rebuilt_by_load(kind, tmp_path):
    module = {
        "croco": lambda: CroCo(**TINY, pos_embed="RoPE100"),
        "mae": lambda: MAE(**TINY_MAE),
        "pgn": lambda: PGN(width=1 / 32, depths=(1, 1, 2, 1)),
    }[kind]()
    save(tmp_path / "deep/a", module, provenance={"seed": 3})
    rebuilt = load(tmp_path / "deep/a")
    assert type(rebuilt) is type(module)
    assert same_weights(rebuilt, module)
    assert json.loads((tmp_path / "deep/a/provenance.json").read_text()) == {"seed": 3}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a"]
    specific = {"croco": load_croco, "mae": load_mae, "pgn": load_pgn}[kind]
    assert same_weights(specific(tmp_path / "deep/a"), module)
    assert same_weights(specific(tmp_path / "deep/a/model.safetensors"), module)


def test_networks_that_are_about_to_be_filled_draw_no_weights(tmp_path):
    for name, kind in (("croco_mini_patch8_64", CroCo), ("mae_mini_patch8_64", MAE)):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        made = catalog.create(name, seed=3)
        save(tmp_path / name, made, provenance={})
        encoder_of(tmp_path / name)
        loaded = load(tmp_path / name)
        assert torch.equal(torch.get_rng_state(), before)
        drawn = kind(**made.config)
        assert not torch.equal(torch.get_rng_state(), before)
        drawn.reset_parameters(torch.Generator().manual_seed(3))
        for network in (made, loaded):
            assert all(torch.equal(value, network.state_dict()[key]) for key, value in drawn.state_dict().items())


def test_saving_twice_replaces_the_checkpoint_and_gives_the_same_bytes(tmp_path):
    first, second = catalog.create("croco_mini_patch8_64", 0), catalog.create("croco_mini_patch8_64", 1)
    save(tmp_path / "a", first, provenance={})
    before = fingerprint(tmp_path / "a")
    save(tmp_path / "a", second, provenance={})
    assert fingerprint(tmp_path / "a") != before
    save(tmp_path / "a", first, provenance={})
    assert fingerprint(tmp_path / "a") == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("number", range(1, 8))
def test_what_a_killed_save_leaves_is_gone_after_the_next(number, tmp_path, monkeypatch):
    """Killed before each of the steps on which something is written or moved, `number` of them done."""
    directory, module = tmp_path / "a", catalog.create("croco_mini_patch8_64", 0)
    save(directory, module, provenance={})
    killed = os.fork()
    if not killed:
        steps = iter(range(number))

        def or_die(step):
            return lambda *args, **kwargs: (
                step(*args, **kwargs) if next(steps, None) is not None else os.kill(os.getpid(), signal.SIGKILL)
            )

        for place, name in ((Path, "write_text"), (Path, "replace"), (shutil, "rmtree")):
            monkeypatch.setattr(place, name, or_die(getattr(place, name)))
        save(directory, module, provenance={}, card="a card")
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(killed, 0)[1])
    save(directory, module, provenance={}, card="a card")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert same_weights(load(directory), module)


def test_a_module_without_known_architecture_needs_a_config(tmp_path):
    with pytest.raises(ValueError, match="architecture"):
        save(tmp_path / "a", nn.Linear(2, 2), provenance={})
    save(tmp_path / "a", nn.Linear(2, 2), provenance={}, config={"architecture": "line"})
    assert read_config(tmp_path / "a")["architecture"] == "line"
    with pytest.raises(CheckpointError, match="'line'"):
        load(tmp_path / "a")


def test_another_architecture_is_refused_with_the_first_difference(tmp_path):
    torch.save({"model": CroCo(**TINY).state_dict(), "croco_kwargs": {**TINY, "enc_depth": 3}}, tmp_path / "deeper.pth")
    with pytest.raises(CheckpointError, match=r"deeper\.pth.*no enc_blocks\.2\.norm1\.weight.*\(32,\)"):
        load_croco(tmp_path / "deeper.pth")
    torch.save({"model": CroCo(**TINY).state_dict()}, tmp_path / "silent.pth")
    with pytest.raises(CheckpointError, match=r"mask_token has shape \(1, 1, 16\) .* \(1, 1, 512\).*v1 were assumed"):
        load_croco(tmp_path / "silent.pth")
    state = CroCo(**TINY).state_dict()
    state["enc_pos_embed"] = state["enc_pos_embed"][:-1]
    torch.save({"model": state, "croco_kwargs": TINY}, tmp_path / "oblong.pth")
    with pytest.raises(CheckpointError, match=r"oblong\.pth.*enc_pos_embed"):
        load_croco(tmp_path / "oblong.pth")
    state = MAE(**TINY_MAE).state_dict()
    state["pos_embed"] = state["pos_embed"][:, :-1]
    torch.save({"model": state}, tmp_path / "oblong_mae.pth")
    with pytest.raises(CheckpointError, match=r"oblong_mae\.pth: \d+ patch positions are no square grid"):
        load_mae(tmp_path / "oblong_mae.pth")


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    save(tmp_path / "mae", MAE(**TINY_MAE), provenance={})
    with pytest.raises(CheckpointError, match=r"holds a 'mae', not a 'croco'"):
        load_croco(tmp_path / "mae")
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "line.pth")
    with pytest.raises(CheckpointError, match=r"neither CroCo nor MAE.* begins with weight"):
        load_pretrained(tmp_path / "line.pth")
    export_timm(CroCo(**TINY), tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match=r"it has no cls_token; it begins with blocks\..*, of shape \("):
        load_mae(tmp_path / "encoder.safetensors")


@pytest.mark.parametrize("reader, module", [(load_croco, lambda: CroCo(**TINY)), (load_mae, lambda: MAE(**TINY_MAE))])
def test_a_config_that_tells_another_image_size_than_the_weights_is_refused(reader, module, tmp_path):
    save(tmp_path / "a", module(), provenance={})
    config = read_config(tmp_path / "a")
    config["kwargs"]["img_size"] = 48
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"pos_embed has shape"):
        reader(tmp_path / "a")


@pytest.mark.parametrize(
    ("beside", "metadata", "said"),
    [
        ("{", {}, r"a\.json is damaged"),
        ("[1]", {}, r"a\.json is no JSON object but a list"),
        (None, {"croco_kwargs": "{"}, r"a\.safetensors: croco_kwargs of its metadata is damaged"),
    ],
)
def test_damaged_facts_beside_or_in_a_safetensors_file_are_named(croco, tmp_path, beside, metadata, said):
    write_safetensors(tmp_path / "a.safetensors", croco.state_dict(), metadata)
    if beside is not None:
        (tmp_path / "a.json").write_text(beside)
    with pytest.raises(CheckpointError, match=said):
        load_croco(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_damaged_file_is_called_damaged(name, tmp_path):
    save(tmp_path / "whole", CroCo(**TINY), provenance={})
    content = (tmp_path / "whole/model.safetensors").read_bytes()
    if name == "a.pth":
        torch.save({"model": CroCo(**TINY).state_dict()}, tmp_path / "b.pth")
        content = (tmp_path / "b.pth").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>not found</html>"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
            load_croco(tmp_path / name)


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "trap": _Trap()}, tmp_path / "a.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"model": _Trap()}))
    torch.save({"model": {}, "args": argparse.Namespace(output_dir=Path("there"))}, tmp_path / "paths.pth")
    for name, what in (("a.pth", "it names getattr, "), ("old.pth", "damaged"), ("paths.pth", r"names pathlib\.")):
        with pytest.raises(CheckpointError, match=what) as refused:
            load_croco(tmp_path / name)
        assert "weights_only=False" not in str(refused.value), "torch's advice, which nobody here can take"
        assert str(refused.value).isprintable()
    assert not (tmp_path / "trapped").exists()


def test_an_absent_checkpoint_is_a_file_not_found(tmp_path):
    for reader in (load_croco, load_mae, load_pgn, load_pretrained, load, encoder_of):
        with pytest.raises(FileNotFoundError):
            reader(tmp_path / "nothing")


@torch.no_grad()
def test_timm_computes_the_same_features_from_an_exported_croco(tmp_path):
    model = catalog.create("croco_base_patch16_224").eval()
    options = export_timm(model, tmp_path / "encoder.safetensors")
    assert options == {
        "model_name": "vit_base_patch16_224",
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
        "num_classes": 0,
        "checkpoint_path": str(tmp_path / "encoder.safetensors"),
    }
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model(**options).eval().forward_features(image)
    torch.testing.assert_close(theirs, model.encode(image), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["croco_mini_patch8_64", "mae_mini_patch8_64"])
def test_timm_computes_the_same_features_from_an_exported_mini_network(name, tmp_path):
    model = catalog.create(name).eval()
    save(tmp_path / "a", model, provenance={})
    options = export_timm(tmp_path / "a", tmp_path / "encoder.safetensors")
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model(**options).eval().forward_features(image)[:, -64:]
    torch.testing.assert_close(theirs, model.encode(image), atol=1e-5, rtol=1e-5)


def test_a_file_that_timm_would_take_for_another_kind_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"call it .*encoder\.safetensors"):
        export_timm(catalog.create("croco_mini_patch8_64"), tmp_path / "encoder.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_from_which_timm_computes_something_else_is_not_written(tmp_path, monkeypatch):
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda **options: create_model(**options | {"act_layer": "relu"}))
    (tmp_path / "encoder.safetensors").write_text("of before")
    with pytest.raises(CheckpointError, match=r"timm \d.* computes other features from this encoder: .*%"):
        export_timm(catalog.create("croco_mini_patch8_64"), tmp_path / "encoder.safetensors")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"encoder.safetensors": "of before"}


def test_the_export_command_prints_the_call_that_loads_the_file(tmp_path, monkeypatch, capsys):
    save(tmp_path / "a", catalog.create("croco_mini_patch8_64"), provenance={}, card="# What a is\n")
    monkeypatch.setattr("sys.argv", ["timm_export", str(tmp_path / "a"), str(tmp_path / "encoder.safetensors")])
    timm_export.main()
    call = capsys.readouterr().out
    assert call.startswith("timm.create_model(model_name='vit_base_patch16_224'")
    assert "encoder.safetensors" in call
    card = (tmp_path / "encoder.safetensors.md").read_text()
    assert f"The encoder of `a` (SHA-256 of its weights `{fingerprint(tmp_path / 'a')}`)" in card
    assert call.strip().replace(f"{tmp_path}/", "") in card
    assert f"timm {timm.__version__} computes the features that the checkpoint does" in card
    assert card.endswith("# What a is\n")
    monkeypatch.setattr("sys.argv", ["timm_export", str(tmp_path / "none"), str(tmp_path / "encoder.safetensors")])
    with pytest.raises(SystemExit):
        timm_export.main()
    assert "no weight file at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("provenance", "name"), [({"run": "croco_body", "steps": 8}, "croco_body@8"), ({"run": "mae"}, "mae"), ({}, "8")]
)
def test_the_card_of_an_exported_encoder_names_run_and_step_wherever_it_is_exported_from(
    tmp_path, monkeypatch, provenance, name
):
    folder = tmp_path / "croco_body/after/8"
    save(folder, catalog.create("croco_mini_patch8_64"), provenance=provenance)
    monkeypatch.chdir(folder)
    for number, source in enumerate((".", "model.safetensors", folder)):
        export_timm(source, tmp_path / f"{number}.safetensors")
        assert f"The encoder of `{name}` (" in (tmp_path / f"{number}.safetensors.md").read_text()


def test_rotary_croco_cannot_be_exported(tmp_path):
    with pytest.raises(ValueError, match="RoPE100"):
        export_timm(CroCo(**TINY, pos_embed="RoPE100"), tmp_path / "encoder.safetensors")


@torch.no_grad()
@pytest.mark.parametrize(
    "build", [lambda: CroCo(**TINY), lambda: CroCo(**TINY, pos_embed="RoPE100"), lambda: MAE(**TINY_MAE)]
)
def test_an_encoder_gives_the_patch_tokens_of_its_network(build, tmp_path):
    module = build()
    save(tmp_path / "a", module, provenance={})
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for source in (module, tmp_path / "a"):
        encoder = encoder_of(source)
        assert (encoder.width, encoder.patch_size, encoder.num_patches) == (32, 8, 16)
        torch.testing.assert_close(encoder(image), module.encode(image))
        assert not any("dec" in name for name in encoder.state_dict())


def test_an_encoder_owns_its_weights():
    module = CroCo(**TINY)
    encoder = encoder_of(module, drop_path=0.1)
    nn.init.zeros_(encoder.enc_norm.weight)
    assert module.enc_norm.weight.all()


def test_only_pretrained_networks_have_an_encoder():
    with pytest.raises(ValueError, match="Linear"):
        encoder_of(nn.Linear(2, 2))
