"""The licensed SMPL bodies, as they lie in a user's data/raw/smpl (dataset page "SMPL model files")."""

from __future__ import annotations

from pathlib import Path

NAMES = {
    "neutral": (
        "SMPL_NEUTRAL.pkl",
        "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
        "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
    ),
    "male": ("SMPL_MALE.pkl", "basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "basicmodel_m_lbs_10_207_0_v1.0.0.pkl"),
    "female": ("SMPL_FEMALE.pkl", "basicmodel_f_lbs_10_207_0_v1.1.0.pkl", "basicModel_f_lbs_10_207_0_v1.0.0.pkl"),
}
"""Of each body: the usual renaming, then the names in the archives; the first that is there is taken."""
REGRESSOR = "J_regressor_h36m.npy"
"""The joints that errors are measured on, from the vertices; `pipeline.bodies.load` takes it from beside a body."""


def find(folder: Path, gender: str) -> Path | None:
    """The file of a body, None where there is none."""
    return next((folder / name for name in NAMES[gender] if (folder / name).is_file()), None)


def files(folder: Path) -> list[Path]:
    """All that is there of bodies and regressor."""
    bodies = [path for gender in NAMES if (path := find(folder, gender))]
    return [*bodies, *(path for path in [folder / REGRESSOR] if path.is_file())]


def missing(folder: Path, genders: list[str]) -> list[str]:
    """What has to be put into the folder before these bodies can be used, one file each."""
    bodies = [" or ".join(NAMES[gender]) for gender in genders if find(folder, gender) is None]
    return bodies + ([] if (folder / REGRESSOR).is_file() else [REGRESSOR])
