"""Where a checkpoint or a number comes from: parameters, inputs, code and machine, as small JSON."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models import checkpoints
from pipeline.layout import PROJECT, Layout

_SAMPLED = 1 << 20


@dataclass(frozen=True)
class Value:
    """A measured number; `n` samples are behind it."""

    value: float
    unit: str
    n: int


def file_fingerprint(path: Path) -> str:
    """Hash of a file's size, first and last megabyte: tells versions apart at a cost free of size.

    Every file it is used on is written once and never edited in place.
    """
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as content:
        digest.update(content.read(_SAMPLED))
        content.seek(max(0, size - _SAMPLED))
        digest.update(content.read(_SAMPLED))
    return digest.hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Hash of names and bytes of the files in a folder; that of nothing where there is none."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.glob("*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def code_fingerprint() -> str:
    """Hash of torch's version and the modules that training runs: a run never goes on with the state of other code."""
    digest = hashlib.blake2b(torch.__version__.encode(), digest_size=8)
    for folder in ("models", "pipeline/loading", "pipeline/training", "pipeline/tasks", "pipeline/bodies"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            digest.update(path.relative_to(PROJECT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def git_revision() -> str | None:
    """Commit of the project's checkout, with `+` behind it when files differ from it; None outside git."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def describe(params_fingerprint: str, inputs: Iterable[Path], seed: int, **more: Any) -> dict[str, Any]:
    """provenance.json of a checkpoint: paths are relative to the project where they lie in it."""
    return {
        "params_fingerprint": params_fingerprint,
        "inputs": {_relative(path): file_fingerprint(path) for path in inputs},
        "seed": seed,
        "git_revision": git_revision(),
        "torch": torch.__version__,
        **more,
    }


def is_measured(layout: Layout, stage: str, name: str, key: str) -> bool:
    """Whether the metrics file is the one of run `key`, and what it names lies there unchanged."""
    try:
        content = json.loads(layout.metrics(stage, name).read_text())
        checkpoint, pictures = content["checkpoint"], content["pictures"]
        return (
            content["key"] == key
            and checkpoints.fingerprint(layout.root / checkpoint["path"]) == checkpoint["sha256"]
            and folder_fingerprint(layout.root / pictures["path"]) == pictures["fingerprint"]
            and layout.history(stage, name).is_file()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_metrics(
    layout: Layout,
    stage: str,
    name: str,
    values: Mapping[str, Value],
    *,
    checkpoint: Path,
    pictures: Path,
    params_fingerprint: str,
    seconds: float,
    command: str,
    **more: Any,
) -> Path:
    """Write the metrics file of one (stage, name), aside and renamed into place.

    Args:
        checkpoint: folder of the weights the values were measured with.
        pictures: folder of what was drawn with them; with its hash in here, another picture is another
            metrics file, and the report is made again.
        seconds: wall time of the run that ended here (not of runs it resumed).
        command: what makes this file again.
        more: such as `init`, `run`, `seed` (see pipeline.reporting.metric_table).
    """
    content = {
        "stage": stage,
        "scale": layout.scale,
        "values": {key: asdict(value) for key, value in values.items()},
        "checkpoint": {"path": _relative(checkpoint, layout.root), "sha256": checkpoints.fingerprint(checkpoint)},
        "pictures": {"path": _relative(pictures, layout.root), "fingerprint": folder_fingerprint(pictures)},
        "params_fingerprint": params_fingerprint,
        "git_revision": git_revision(),
        "seconds": round(seconds, 1),
        "command": command,
        **more,
    }
    return write_text(layout.metrics(stage, name), json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write a small file aside, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _relative(path: Path, root: Path = PROJECT) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
