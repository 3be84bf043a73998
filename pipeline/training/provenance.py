"""Where a checkpoint or a number comes from: parameters, inputs, code and machine, as small JSON."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models import checkpoints
from pipeline import code
from pipeline.layout import PROJECT, Layout

_SAMPLED = 1 << 20
_TRAINING = (
    "models",
    "pipeline/crops.py",
    "pipeline/loading",
    "pipeline/training/loop.py",
    "pipeline/training/optimizer.py",
    "pipeline/training/precision.py",
)
"""What every training computes with."""
_FORMATS = {"models/checkpoints.py", "models/weight_files.py", "models/timm_export.py"}
"""Of that what reads and writes checked formats, and changes no number."""


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


def file_fingerprints(paths: Iterable[Path], root: Path = PROJECT) -> dict[str, str]:
    """`file_fingerprint` of each by its path, which is relative to `root` where it lies in it.

    Raises FileNotFoundError that says what makes the missing one.
    """
    found = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro` or `make tables` makes it")
        found[_relative(path, root)] = file_fingerprint(path)
    return found


def checkpoint_fingerprint(folder: Path) -> str:
    """SHA-256 of the weights that a run starts from. Raises FileNotFoundError that says what makes missing ones."""
    if not (folder / checkpoints.WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder}: no such checkpoint; `dvc repro` makes those of the headline, `make tables` all others"
        )
    return checkpoints.fingerprint(folder)


def folder_fingerprint(folder: Path) -> str:
    """Hash of names and bytes of the files in a folder; that of nothing where there is none."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.glob("*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def code_fingerprints(*further: str) -> dict[str, str]:
    """Hash of each module that decides what a training ends with, and torch's version.

    Args:
        further: modules and folders of the training at hand, beside what every training computes with.
    """
    hashes = code.hashes((*_TRAINING, *further))
    return {"torch": torch.__version__, **{name: hashes[name] for name in hashes if name not in _FORMATS}}


def git_revision(project: Path = PROJECT) -> str | None:
    """Commit of the project's checkout, with `+` behind it when tracked files differ; None outside git.

    What stages write themselves, results and lock files, does not count: a run in a fresh clone is of that commit.
    """
    git = ["git", "-C", str(project)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20, check=True)
        written = [":(exclude)reports/metrics", ":(exclude)reports/histories", ":(exclude,glob)**/dvc.lock"]
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", ".", *written], capture_output=True, timeout=20
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changed else "")


def hardware() -> str:
    """What computes here: the GPUs by their names, else the processor and the instructions that torch uses of it."""
    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return ", ".join(f"{count} x {name}" for name, count in names.items())
    try:
        said = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        said = None
    name = said[1] if said else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def describe(params_fingerprint: str, inputs: Mapping[str, str], seed: int, **more: Any) -> dict[str, Any]:
    """provenance.json of a checkpoint; `inputs` as of `file_fingerprints`."""
    return {
        "params_fingerprint": params_fingerprint,
        "inputs": dict(inputs),
        "seed": seed,
        "git_revision": git_revision(),
        "hardware": hardware(),
        "torch": torch.__version__,
        **more,
    }


def read(folder: Path) -> dict[str, Any]:
    """provenance.json of a checkpoint; nothing where there is none."""
    path = folder / "provenance.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


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
        "hardware": hardware(),
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
