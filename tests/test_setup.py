"""What `make` sets up before anything else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def test_a_machine_that_the_packages_are_not_made_for_is_told_so_before_they_are_fetched(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "setup.sh", tmp_path)
    (tmp_path / "requirements.txt").write_text("a-package-that-is-nowhere==1\n")
    (tmp_path / "bin").mkdir()
    uname = tmp_path / "bin" / "uname"
    uname.write_text("#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac\n")
    uname.chmod(0o755)
    environment = {"PATH": f"{uname.parent}:/usr/bin:/bin", "PYTHON": sys.executable, "VENV": "environment"}
    done = subprocess.run(
        ["sh", "./setup.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "error: this needs Linux on x86-64, and here is Darwin on arm64" in done.stderr
    assert "a-package-that-is-nowhere" not in done.stdout + done.stderr
    assert not (tmp_path / "environment").exists()


def test_a_disk_too_small_for_the_packages_is_said_before_they_are_fetched(tmp_path: Path) -> None:
    in_own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*in_own_mounts, "true"]).returncode:
        pytest.skip("a small disk can not be mounted here")
    shutil.copy(PROJECT / "setup.sh", tmp_path)
    (tmp_path / "requirements.txt").write_text("a-package-that-is-nowhere==1\n")
    (tmp_path / "disk").mkdir()
    set_up = "mount -t tmpfs -o size=100m none disk && sh ./setup.sh"
    done = subprocess.run(
        [*in_own_mounts, "env", f"PYTHON={sys.executable}", "VENV=disk/environment", "sh", "-c", set_up],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "error: too little disk for disk/environment" in done.stderr
    assert "a-package-that-is-nowhere" not in done.stdout + done.stderr
