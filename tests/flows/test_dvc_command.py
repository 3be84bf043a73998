"""Lock files of DVC survive that DVC is killed, or runs out of disk, while it writes them; two DVCs get along."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.dvc_command import ThroughLinks
from pipeline.layout import PROJECT
from tests.flows.dvc_repository import make_repository

CUT_OFF = """
import os, signal, sys
from dvc.utils.serialize import _yaml
from flows.dvc_command import main

def half(data, stream):
    stream.write("schema: '2.0'\\nstages:\\n  first:\\n    cmd: ec")
    stream.flush()
    {ending}

_yaml._dump = half
sys.exit(main(["repro", "--force"]))
"""

KILLED_AT_THE_LOCK_OF_PATHS = """
import os, signal, sys
from types import SimpleNamespace
from dvc import rwlock
from flows.dvc_command import main

def half(lock, file):
    file.write('{"wri')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

rwlock.json = SimpleNamespace(**{**vars(rwlock.json), "dump": half})
sys.exit(main(["repro", "--force"]))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages:\n  first:\n    cmd: echo 1 > out\n    outs: [out]\n")
    make_repository(tmp_path)
    assert dvc(tmp_path, "-m", "flows.dvc_command", "repro").returncode == 0
    assert "first:" in (tmp_path / "dvc.lock").read_text()
    return tmp_path


def dvc(folder: Path, *arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "DVC_NO_ANALYTICS": "1"}
    environment["PREFECT_HOME"] = str(folder / ".prefect")
    command = [*before, sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("raise OSError(28, 'No space left on device')", 255),
    ],
)
def test_a_lock_file_is_the_old_one_until_the_new_one_is_whole(repository: Path, ending: str, status: int) -> None:
    before = (repository / "dvc.lock").read_text()
    (repository / "dvc.yaml").write_text("stages:\n  first:\n    cmd: echo 2 > out\n    outs: [out]\n")
    cut_off = dvc(repository, "-c", CUT_OFF.format(ending=ending))
    assert cut_off.returncode == status, cut_off.stderr
    assert (repository / "dvc.lock").read_text() == before

    again = dvc(repository, "-m", "flows.dvc_command", "repro")
    assert again.returncode == 0, again.stderr
    assert "echo 2" in (repository / "dvc.lock").read_text()
    assert (repository / "out").read_text() == "2\n"
    if status > 0:
        assert not list(repository.glob(".dvc.lock.*"))


def test_who_is_killed_while_it_notes_what_it_works_on_can_be_run_again(repository: Path) -> None:
    assert dvc(repository, "-c", KILLED_AT_THE_LOCK_OF_PATHS).returncode == -signal.SIGKILL
    again = dvc(repository, "-m", "flows.dvc_command", "repro", "--force")
    assert again.returncode == 0, again.stderr


def test_a_stage_that_has_run_waits_for_the_lock_of_another_dvc(repository: Path) -> None:
    held = "import time, zc.lockfile; held = zc.lockfile.LockFile('.dvc/tmp/lock'); open('held', 'w'); time.sleep(8)"
    begun = f'touch ran; {sys.executable} -c "{held}" & while [ ! -e held ]; do sleep 0.1; done; echo 2 > out'
    stage = {"first": {"cmd": begun, "outs": ["out"]}}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": stage}))
    done = dvc(repository, "-m", "flows.dvc_command", "repro")
    assert done.returncode == 0, done.stderr
    assert (repository / "out").read_text() == "2\n"
    assert "touch ran" in (repository / "dvc.lock").read_text()


def test_only_force_removes_what_stays_in_place(repository: Path) -> None:
    stage = {"cmd": "[ -e out ] || date +%N > out", "outs": [{"out": {"persist": True}}], "deps": ["given"]}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"first": stage}}))
    (repository / "given").write_text("1")
    made = []
    for arguments in (["repro"], ["repro"], ["repro", "--force"]):
        done = dvc(repository, "-m", "flows.dvc_command", *arguments)
        assert done.returncode == 0, done.stderr
        made.append((repository / "out").read_text())
        (repository / "given").write_text("2")
    assert made[0] == made[1] == "1\n" != made[2]


def test_an_output_that_does_not_fit_into_the_cache_is_a_failure_that_room_mends(repository: Path) -> None:
    """The cache is on a disk of half a megabyte, in a mount of this test's own."""
    in_own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*in_own_mounts, "true"]).returncode:
        pytest.skip("a small disk can not be mounted here")
    large = {"cmd": "head -c 2000000 /dev/urandom > large", "outs": ["large"]}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"first": large}}))
    (repository / "small.sh").write_text('mount -t tmpfs -o size=500k none .dvc/cache && exec "$@"\n')
    tight = dvc(repository, "-m", "flows.dvc_command", "repro", before=[*in_own_mounts, "sh", "small.sh"])
    assert tight.returncode
    assert "No space left on device" in tight.stderr
    assert "1 files could not be copied into DVC's cache" in tight.stderr
    assert "head -c" not in (repository / "dvc.lock").read_text()
    made = (repository / "large").read_bytes()
    assert dvc(repository, "-m", "flows.dvc_command", "commit", "-f", "first").returncode == 0
    assert "head -c" in (repository / "dvc.lock").read_text()
    assert "didn't change" in dvc(repository, "-m", "flows.dvc_command", "repro").stdout
    assert (repository / "large").read_bytes() == made


def test_a_stage_notices_what_lies_behind_links_in_its_raw_data(repository: Path) -> None:
    raw, elsewhere = repository / "data/raw/3dpw", repository / "elsewhere"
    raw.mkdir(parents=True)
    elsewhere.mkdir()
    (raw / "SOURCE.md").touch()
    (elsewhere / "1.jpg").write_text("1")
    read = {"cmd": "ls data/raw/3dpw/* > read", "deps": ["data/raw/3dpw"], "outs": ["read"]}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"index": read}}))

    def runs() -> bool:
        done = dvc(repository, "-m", "flows.dvc_command", "repro")
        assert done.returncode == 0, done.stderr
        return "Running stage 'index'" in done.stdout

    assert runs()
    (raw / "imageFiles").symlink_to(elsewhere)
    assert runs()
    (elsewhere / "1.jpg").write_text("another")
    (elsewhere / "back").symlink_to(raw)
    assert runs()


def test_links_are_followed_to_their_end_past_what_is_ignored(tmp_path: Path) -> None:
    raw, elsewhere = tmp_path / "raw", tmp_path / "elsewhere"
    raw.mkdir()
    (elsewhere / "__pycache__").mkdir(parents=True)
    (elsewhere / "1.jpg").touch()
    for link, to in ((raw / "train", elsewhere), (raw / "test", elsewhere), (raw / "again", raw)):
        link.symlink_to(to)
    for link, to in ((elsewhere / "back", raw), (elsewhere / "above", tmp_path), (elsewhere / "__pycache__/x", raw)):
        link.symlink_to(to)

    def ignored(folder: str, folders: list[str], files: list[str]) -> tuple[list[str], list[str]]:
        return [name for name in folders if name != "__pycache__"], files

    found = {(os.path.relpath(folder, raw), *files) for folder, _, files in ThroughLinks(ignored).walk(None, str(raw))}
    assert {("train", "1.jpg"), ("test", "1.jpg")} <= found
    assert {folder for folder, *_ in found} == {".", "train", "test", "train/above", "test/above"}
    # Outside of its repository DVC ignores nothing, and gives back the very lists that it got.
    everything = ThroughLinks(lambda _, *there: there).walk(None, str(elsewhere / "__pycache__"))
    assert {Path(folder).name for folder, *_ in everything} >= {"__pycache__", "x"}


def test_links_in_an_output_are_left_as_dvc_takes_them(repository: Path) -> None:
    (repository / "elsewhere").mkdir()
    (repository / "elsewhere/mine").write_text("mine")
    make = {"cmd": "mkdir out && ln -s ../elsewhere out/link && echo 1 > out/file", "outs": ["out"]}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"make": make}}))
    assert dvc(repository, "-m", "flows.dvc_command", "repro").returncode == 0
    assert "nfiles: 1" in (repository / "dvc.lock").read_text()
    assert (repository / "out/link").is_symlink() and (repository / "elsewhere/mine").read_text() == "mine"


def test_an_archive_of_the_project_is_told_to_become_a_repository(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    refused = dvc(repository, "-m", "flows.dvc_command", "repro")
    assert refused.returncode != 0
    assert "`git init` here makes it one" in refused.stdout
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    assert dvc(repository, "-m", "flows.dvc_command", "repro").returncode == 0


def test_the_command_of_the_environment_is_this_one() -> None:
    command = Path(sys.executable).with_name("dvc")
    if not command.is_relative_to(PROJECT):
        pytest.skip("the environment was not made by setup.sh of this checkout")
    assert str(PROJECT / "flows" / "dvc_command.py") in command.read_text()
    shown = subprocess.run([command, "version"], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0
    assert shown.stdout.startswith("DVC version")
