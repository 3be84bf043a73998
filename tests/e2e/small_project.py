"""A copy of the project at a scale of seconds: its own git and DVC repository, its own Prefect server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
STANDINS = {
    "coco": {"images": 6, "width": 160, "height": 120},
    "humbi": {"subjects": 3, "instants": 2, "cameras": 3},
    "aist": {"sequences": 2, "instants": 4, "cameras": 2},
    "3dpw": {"train_sequences": 2, "val_sequences": 1, "test_sequences": 2, "frames": 4},
    "synthetic": {"scenes": 16, "cameras": 3},
    "coco_part_eft": {"images": 24},
    "interhand": {"captures": 2, "sequences": 3, "frames": 4, "cameras": 3, "side": 128},
    "habitat": {"rooms": 4, "pairs": 4},
}
MISSING = "penn_action"
"""Neither present nor stood in for, as it may be at scale `paper`."""

FURTHER = {
    "ablations": ("croco", "croco_body_seed_1", "croco_hand"),
    "keypoints": ("keypoints_body",),
    "study": ("study", "study_pose"),
}
"""One run of each kind that `make tables` adds."""


def small_params() -> dict[str, Any]:
    """params.yaml with every size that costs time cut down, and few of the further runs; anchors are resolved."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params = {key: value for key, value in params.items() if not key.startswith("x-")}
    params["scale"] = "test"
    params["report_folder"] = "reports/out/test"
    params["bodies"] |= {"num_shapes": 40, "num_heldout": 4}
    params["motions"] |= {"num_subjects": 4, "clips_per_subject": 2, "seconds": 2.0}
    for name, sizes in STANDINS.items():
        params["datasets"][name]["standin"] |= sizes
    del params["datasets"][MISSING]["standin"]
    params["parser"] |= {"steps": 6, "batch": 4}
    params["pairs"] |= {"max_view": 60, "max_pose": 30, "min_human_patches": 0}  # nothing is found by such a parser
    params["study_datasets"] = []
    for key, names in FURTHER.items():
        params[key] = {name: params[key][name] for name in names}
    params["finetune"]["body_mesh"]["tables"] = ["croco_body_seed_1"]
    for run in (run for key in ("pretrain", *FURTHER) for run in params[key].values()):
        run |= {"steps": 24, "warmup_steps": 2, "batch": 8, "checkpoint_every": 6, "heldout": 0.1}
    for run in params["study"].values():
        run["heldout"] = 0.4  # of few recordings some of each kind
    for run in params["pretrain"].values():
        run["snapshots"] = [6, 12]
    params["figure_3b"] |= {"inits": ["croco_body"], "shares": [0.5]}
    params["figure_4"] |= {"runs": ["croco_body"], "steps": [6]}
    params["body_mesh"] |= {"seeds": [0, 1], "steps": 6, "batch": 8, "warmup_steps": 1, "checkpoint_every": 3}
    return params


def make_project(folder: Path) -> Path:
    """Copy what git knows (or would add) of the checkout, with small params and one commit.

    Other scales stay behind: every command of DVC would read their graphs as well.
    """
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=PROJECT)
    for name in filter(None, listed.split("\0")):
        source, target = PROJECT / name, folder / name
        if name.startswith(("reports/metrics/", "scales/")) or name.endswith("dvc.lock") or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False))
    _git("init", "--quiet", cwd=folder)
    _git("add", "--all", cwd=folder)
    _git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message=start", cwd=folder)
    return folder


def environment(project: Path) -> dict[str, str]:
    """Commands find this environment's Python first and nothing of the surrounding Prefect."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "DVC", "PIPELINE"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "PREFECT_HOME": str(project / ".prefect"), "PYTHONUNBUFFERED": "1"}


def run(project: Path, *command: str, check: bool = True, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in the project; output of both streams together."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done


def _git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout
