"""Where a run that is not finished keeps its state, and what that state was made from.

A run goes on only with its own: the same parameters, inputs and code, on the same kind of device. Where its name has a
state made from something else, somebody changed that in mid-course, and only they know which of the two they want.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.layout import Layout
from pipeline.run_spec import fingerprint
from pipeline.training.checkpoint import TrainingError, steps_done
from pipeline.training.provenance import write_text

NOTE = "made_from.json"
HOLDER = "held_by"
PATIENCE_S = 30.0
"""What a process that was told to stop may take for its last step and state, when the next one is there already."""

_held: dict[Path, IO[str]] = {}
"""Files whose locks this process keeps, by their folder."""


@dataclass(frozen=True)
class Basis:
    """All that decides how a run ends."""

    params: Mapping[str, Any]
    """By their place in params.yaml, as JSON has them."""
    inputs: Mapping[str, str]
    """Hash of each input by its name."""
    code: Mapping[str, str]
    """See `provenance.code_fingerprints`."""
    device: str

    @property
    def key(self) -> str:
        """Hash of it all."""
        return fingerprint(asdict(self))


def scratch_of(layout: Layout, stage: str, name: str, basis: Basis) -> Path:
    """Where the state of a run lies while it is not finished."""
    return layout.scratch(stage, f"{_title(name)}-{basis.key}")


def open_scratch(layout: Layout, stage: str, name: str, basis: Basis, *, leads: bool = True) -> Path:
    """The folder for the state of a run, this process's alone until it ends or closes it; a note of the run's basis
    lies in it.

    Args:
        leads: whether this is the process that speaks and writes, of those that train together.

    Raises TrainingError: as `refuse_others`, or another process works there.
    """
    scratch = scratch_of(layout, stage, name, basis)
    if leads:
        refuse_others(layout, stage, [name], basis)
        _hold(scratch)
        write_text(scratch / NOTE, json.dumps(asdict(basis), indent=1) + "\n")
    return scratch


def close_scratch(folder: Path) -> None:
    """The run is over: its folder goes."""
    if held := _held.pop(folder, None):
        held.close()  # NFS keeps a file that somebody has open, under another name, and with it the folder
    shutil.rmtree(folder)


def _hold(folder: Path) -> None:
    """Two that write the same states and results would take each other's away."""
    if folder in _held:
        return
    until = time.monotonic() + PATIENCE_S
    while not (held := _locked(folder / HOLDER)):
        if time.monotonic() > until:
            raise TrainingError(
                f"{(folder / HOLDER).read_text().strip() or 'another process'} trains this run already, in {folder}. "
                "Wait for its end, or end it and run the same command again: it goes on from there."
            )
        time.sleep(0.1)
    held.truncate(0)
    held.write(f"process {os.getpid()} of {socket.gethostname()}\n")
    held.flush()
    _held[folder] = held


def _locked(path: Path) -> IO[str] | None:
    """The file, open and locked, or None where another process has that lock.

    A lock of the process, not of the open file: the copies of it that make batches do not keep it when they are left
    behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
        # A file system without locks: there, nobody is kept out.
    return file


def refuse_others(layout: Layout, stage: str, names: Sequence[str], basis: Basis) -> None:
    """Raises TrainingError where, of one of these runs, there is no state of its own, but one of another basis."""
    others: list[Path] = []
    for name in names:
        scratch = scratch_of(layout, stage, name, basis)
        if not steps_done(scratch):
            others += [folder for folder in layout.scratches(f"{stage}-{_title(name)}") if steps_done(folder)]
    if others:
        raise TrainingError(_refusal(others, basis))


def _title(name: str) -> str:
    return name.replace("/", "-")


def _refusal(others: list[Path], basis: Basis) -> str:
    lines = ["an unfinished run of this name was made from something else than what is here now."]
    for folder in others:
        lines.append(f"  {folder}, after {steps_done(folder)} steps:")
        lines += [f"    {difference}" for difference in _differences(folder, basis)]
    lines.append(
        "Restore that to go on from there by the same command; or start afresh after "
        f"`rm -r {shlex.join(map(str, others))}`"
    )
    return "\n".join(lines)


def _differences(folder: Path, now: Basis) -> list[str]:
    try:
        then = Basis(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        return [f"from what is not known ({error})"]
    before, after = _flat(then.params), _flat(now.params)
    found = [
        f"{key} was {before.get(key, 'not set')}, is {after.get(key, 'not set')} now" for key in _unlike(before, after)
    ]
    if files := _unlike(then.inputs, now.inputs):
        found.append(f"inputs that changed: {', '.join(files)}")
    if files := _unlike(then.code, now.code):
        found.append(f"code that changed: {', '.join(files)}")
    if then.device != now.device:
        found.append(f"it ran on {then.device}, now it would on {now.device}")
    return found


def _flat(params: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Values as JSON by dotted keys."""
    found: dict[str, str] = {}
    for key, value in params.items():
        inner = isinstance(value, dict) and value
        found |= _flat(value, f"{place}{key}.") if inner else {place + key: json.dumps(value)}
    return found


def _unlike(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
