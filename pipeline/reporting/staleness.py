"""Is a measured number still what params.yaml asks for? A stage that was not run again since leaves its old one.

`dvc repro` keeps the headline up to date; the files of `make tables` stay until that is run again. So the headline says
what data there are now.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.reporting.metric_table import FEW_LABELS, MetricsFile, MetricTable, Value
from pipeline.run_spec import Params, body_mesh_fingerprint, parser_fingerprint, pretrain_fingerprint

_MEAN_POSE = "pa_mpjpe_of_mean_pose"
"""What the mean pose of the training images errs on the test images: other with either."""
_ROUNDING = 1e-3
"""mm: more than processors differ by."""
_MEAN_POSE_OF_A_PART = 3.0
"""mm: more than the mean pose of a part of the training images, which errs otherwise than that of all, differs by."""


def why_stale(file: MetricsFile, metrics: MetricTable, params: Params) -> str | None:
    """What has changed since a file was measured; None when nothing is known to have.

    Looked at are the parameters of its own stage, the images it was measured on, the parameters of
    every pre-training its checkpoint comes from, and whether that checkpoint was trained again since.
    """
    if file.params_fingerprint not in (None, _now(file.stage, file.name, params)):
        return f"measured with other parameters than {params.params_file} has now"
    if _on_other_data(file, metrics, params):
        return "measured on other data"
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


def mean_pose(metrics: MetricTable, params: Params) -> Value | None:
    """Error of a body in the mean pose of the training images, as the headline has it; None before that was run."""
    headline = params.finetune.body_mesh.headline
    files = (file for init in headline for file in metrics.of("body_mesh", init, params.body_mesh.seeds))
    return next((found for file in files if (found := file.values.get(_MEAN_POSE))), None)


def _on_other_data(file: MetricsFile, metrics: MetricTable, params: Params) -> bool:
    """Of body mesh recovery: on other training or test images than the headline."""
    then, now = file.values.get(_MEAN_POSE), mean_pose(metrics, params)
    if then is None or now is None:
        return False
    tolerance = _ROUNDING if file.labels == 1 else _MEAN_POSE_OF_A_PART
    return then.n != now.n or abs(then.value - now.value) > tolerance


def _now(stage: str, name: str, params: Params) -> str | None:
    """None where the stage, or the run of that name, has no parameters any more."""
    if stage == "train_parser":
        return parser_fingerprint(params)
    if stage == "pretrain" and name in params.pretrain:
        return pretrain_fingerprint(name, params)
    return body_mesh_fingerprint(params) if stage in ("body_mesh", FEW_LABELS) else None


def _init(name: str, params: Params) -> str | None:
    return params.pretrain[name].init if name in params.pretrain else None
