"""Where everything lies: the one file that knows paths.

Every path a stage writes contains the scale, so that the outputs of `mini`, `gpu` and
`paper` live side by side and two scales never claim the same DVC output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Layout:
    """Paths of one scale under one project folder (default: this checkout)."""

    scale: str
    root: Path = PROJECT

    @property
    def data(self) -> Path:
        return self.root / "data" / self.scale

    def raw(self, dataset: str) -> Path:
        """Real data as its user put it there; read-only for us."""
        return self.root / "data" / "raw" / dataset

    @property
    def bodies(self) -> Path:
        return self.data / "bodies"

    @property
    def smpl(self) -> Path:
        return self.bodies / "SMPL_NEUTRAL.npz"

    @property
    def mano(self) -> Path:
        return self.bodies / "MANO_RIGHT.npz"

    @property
    def motions(self) -> Path:
        return self.data / "motions"

    def standin(self, dataset: str) -> Path:
        return self.data / "standins" / dataset

    def source(self, dataset: str) -> Path:
        """The folder a dataset is read from: the real one where it is present, else the stand-in."""
        return self.raw(dataset) if has_real_data(self.raw(dataset)) else self.standin(dataset)

    def is_missing(self, dataset: str) -> bool:
        """Whether there is neither the real dataset nor a stand-in; a scale without stand-ins has an empty folder."""
        return not _names(self.source(dataset))

    def records(self, dataset: str) -> Path:
        return self.data / "records" / f"{dataset}.parquet"

    def crops(self, pool: str, dataset: str) -> Path:
        return self.data / "crops" / pool / f"{dataset}.arrow"

    def pairs(self, pool: str, dataset: str) -> Path:
        return self.data / "pairs" / pool / f"{dataset}.parquet"

    def checkpoint(self, name: str) -> Path:
        """Weights of a run; `<run>@<step>` are those it had after so many steps (its `snapshots`)."""
        run, _, step = name.partition("@")
        return self.data / "checkpoints" / run / "after" / step if step else self.data / "checkpoints" / run

    def task_checkpoint(self, task: str, name: str) -> Path:
        return self.data / "task_checkpoints" / task / name

    def metrics(self, stage: str, name: str) -> Path:
        """Small JSON, kept in git: what was measured."""
        return self.root / "reports" / "metrics" / self.scale / stage / f"{name}.json"

    def history(self, stage: str, name: str) -> Path:
        """Losses of a training run over its steps (CSV), kept in git like the metrics."""
        return self.root / "reports" / "histories" / self.scale / stage / f"{name}.csv"

    def pictures(self, stage: str, name: str) -> Path:
        """Pictures a stage draws for the report."""
        return self.data / "pictures" / stage / name

    @property
    def report(self) -> Path:
        """`reports/out` for the scale anyone runs, one folder deeper for the others."""
        out = self.root / "reports" / "out"
        return out if self.scale == "mini" else out / self.scale

    def scratch(self, stage: str, key: str) -> Path:
        """Resumable state of an unfinished run; `key` hashes what the run depends on."""
        return self.root / ".scratch" / self.scale / f"{stage}-{key}"

    def scratches(self, stage: str) -> list[Path]:
        """All there are of a stage, whatever their keys (16 hex digits)."""
        folders = sorted((self.root / ".scratch" / self.scale).glob(f"{stage}-*"))
        return [path for path in folders if re.fullmatch(re.escape(stage) + "-[0-9a-f]{16}", path.name)]


def has_real_data(folder: Path) -> bool:
    """True when a user put something beside the SOURCE.md that ships with the project."""
    return bool(_names(folder) - {"SOURCE.md"})


def _names(folder: Path) -> set[str]:
    """What lies in a folder, but for hidden files: file managers leave some (.DS_Store)."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()
