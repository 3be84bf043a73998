"""State of an unfinished run on disk: written aside, named by its own hash, the last two kept.

A file whose content does not match the hash in its name was damaged; the one before it is
taken then. Finished weights are another thing: models.checkpoints writes those.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")
_KEPT = 2


class TrainingError(ValueError):
    """A run can not go on; the message says where it stands and what to do."""


def save_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` steps; older files than the previous one are removed.

    Args:
        state: tensors, numbers and text in dicts and lists (what a weights-only load accepts).

    Raises:
        TrainingError: the disk is full or can not be written; the state before is still there.
    """
    aside = folder / f".step.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as out:
            torch.save(state, out)
            out.flush()
            os.fsync(out.fileno())
        path = folder / f"step-{step:09d}-{_digest(aside)}.pt"
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write into a RuntimeError
        aside.unlink(missing_ok=True)
        raise TrainingError(
            f"{folder}: can not save the state after step {step}: {error} "
            f"({shutil.disk_usage(_existing(folder)).free / 1e6:.0f} MB are free there). Make room and run the same "
            f"command again: it goes on from step {steps_done(folder)}."
        ) from error
    for _, old in _states(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest state that is whole, with its step; None when there is none.

    Damaged files are named in the log and removed; removed is as well what a killed run had written of a state.

    Raises TrainingError: a whole file can not be read, for want of memory for example; it stays.
    """
    for unfinished in folder.glob(".step.*.tmp"):
        if not _lives(int(unfinished.name.split(".")[2])):
            unfinished.unlink(missing_ok=True)
    for step, path in reversed(_states(folder)):
        if not _is_whole(path):
            logger.warning("%s is damaged, its content does not match its name; trying the state before it", path)
            path.unlink()
            continue
        try:
            return step, torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"{path} is whole but can not be read: {error}. With what it wants at hand, memory for example, the "
                f"same command goes on from step {step}."
            ) from error
    return None


def steps_done(folder: Path) -> int:
    """Steps behind the newest state in a folder that is whole; 0 when there is none."""
    return next((step for step, path in reversed(_states(folder)) if _is_whole(path)), 0)


def _states(folder: Path) -> list[tuple[int, Path]]:
    found = [(match, path) for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match.group(1)), path) for match, path in found)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _is_whole(path: Path) -> bool:
    return path.name.endswith(f"-{_digest(path)}.pt")


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
