"""Repositories of DVC's for tests to run stages in."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_repository(folder: Path) -> None:
    """What `git init` and `dvc init` leave, without the second one's loading of DVC."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").touch()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
