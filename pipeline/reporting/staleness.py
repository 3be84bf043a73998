"""Is a measured number still what params.yaml asks for? A stage that was not run again since leaves its old one.

`dvc repro` keeps the headline up to date; the files of `make tables` stay until that is run again.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.reporting.metric_table import FEW_LABELS, MetricsFile, MetricTable
from pipeline.run_spec import Params, body_mesh_fingerprint, parser_fingerprint, pretrain_fingerprint


def why_stale(file: MetricsFile, metrics: MetricTable, params: Params) -> str | None:
    """What has changed since a file was measured; None when nothing is known to have.

    Looked at are the parameters of its own stage, those of every pre-training its checkpoint
    comes from, and whether that checkpoint was trained again since.
    """
    if file.params_fingerprint not in (None, _now(file.stage, file.name, params)):
        return f"measured with other parameters than {params.params_file} has now"
    start = file.init if file.stage != "pretrain" else _init(file.name, params)
    if start is None:
        return None
    run, _, step = start.partition("@")
    for trained in metrics.of("pretrain", run):
        now = trained.snapshots.get(step) if step else trained.checkpoint and trained.checkpoint.sha256
        if file.init_sha256 and trained.checkpoint and now != file.init_sha256:
            return f"{run} was trained again since"
        if why := why_stale(trained, metrics, params):
            return f"{start}: {why}"
    return None


def why_any_stale(files: Iterable[MetricsFile], metrics: MetricTable, params: Params) -> str | None:
    """The same of a number that several files make: of the first of them that is."""
    return next(filter(None, (why_stale(file, metrics, params) for file in files)), None)


def _now(stage: str, name: str, params: Params) -> str | None:
    """None where the stage, or the run of that name, has no parameters any more."""
    if stage == "train_parser":
        return parser_fingerprint(params)
    if stage == "pretrain" and name in params.pretrain:
        return pretrain_fingerprint(name, params)
    return body_mesh_fingerprint(params) if stage in ("body_mesh", FEW_LABELS) else None


def _init(name: str, params: Params) -> str | None:
    return params.pretrain[name].init if name in params.pretrain else None
