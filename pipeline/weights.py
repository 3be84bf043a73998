"""Initial weights as checkpoints: random ones and published files take the same path.

A row of `import_weights` in params.yaml becomes `data/<scale>/checkpoints/<name>`, so that
"from scratch" and "from the released CroCo" are both just names to whatever starts from them
(paper section 4.2 and Figure 3(a), which compare initialisations).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from torch import nn

from models import catalog, checkpoints
from models.croco import CroCo
from models.encoder import encoder_of
from models.mae import MAE
from models.weight_files import misfit
from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.process import plain_errors
from pipeline.run_spec import Initial, ParamsError
from pipeline.training.model_card import imported_card, published
from pipeline.training.provenance import read

logger = logging.getLogger(__name__)


def import_weights(name: str, layout: Layout, spec: Initial) -> nn.Module:
    """Make the checkpoint `name` from its row of params.yaml.

    Raises:
        ParamsError: the published file is not there, or is another network than the row says.
        CheckpointError: the file is damaged or unsafe.
    """
    fresh = catalog.create(spec.network, spec.seed)
    if spec.source == "random":
        model: nn.Module = fresh
        provenance: dict[str, object] = {"source": "random", "seed": spec.seed}
    else:
        path = layout.raw("weights") / spec.source
        if not path.exists():
            raise ParamsError(
                f"import_weights.{name}: {path} is not there. Download it as "
                f"{layout.raw('weights') / 'SOURCE.md'} says; or take the row, and the runs that start from it, "
                "out of the params file"
            )
        model = _read(path, fresh)
        wanted: nn.Module = fresh
        no_decoder = isinstance(fresh, MAE) and not checkpoints.has_decoder(path)
        if no_decoder:
            model, wanted = encoder_of(model), encoder_of(fresh)
        if why := misfit(model, wanted):
            raise ParamsError(
                f"import_weights.{name}: {path.name} is not {spec.network}: {why}. Name the network that it is, or "
                "another file"
            )
        sha256 = checkpoints.fingerprint(path) if path.is_dir() else checkpoints.sha256_of(path)
        provenance = {"source": spec.source, "sha256": sha256, **published(spec.source)}
        if path.is_dir() or path.name == checkpoints.WEIGHTS:  # ours, which may predict either kind of patches
            made = read(path if path.is_dir() else path.parent)
            if "normalize" in made:
                provenance["normalize"] = made["normalize"]
        if no_decoder:
            fresh.load_state_dict(model.state_dict(), strict=False)
            model = fresh
            provenance["decoder"] = f"not in the file: drawn at random with seed {spec.seed}"
    provenance |= {"network": spec.network, "params_fingerprint": run_spec.fingerprint(spec)}
    card = imported_card(name, spec, layout, model, provenance)
    checkpoints.save(layout.checkpoint(name), model, provenance=provenance, card=card)
    return model


def _read(path: Path, wanted: CroCo | MAE) -> CroCo | MAE:
    """What a file holds; of MAE with as many heads as are wanted, where it does not tell."""
    if isinstance(wanted, MAE):
        heads = {key: value for key, value in wanted.config.items() if key in ("num_heads", "decoder_num_heads")}
        return checkpoints.load_mae(path, **heads)
    return checkpoints.load_croco(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.weights", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file; decides the scale")
    parser.add_argument("--name", required=True, help="row of import_weights")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with plain_errors("import_weights"):
        params = run_spec.load(arguments.params)
        if arguments.name not in params.import_weights:
            raise ParamsError(f"there is no row {arguments.name!r}; there are {', '.join(params.import_weights)}")
        layout = Layout(params.scale)
        import_weights(arguments.name, layout, params.import_weights[arguments.name])
        logger.info("wrote %s", layout.checkpoint(arguments.name))


if __name__ == "__main__":
    main()
