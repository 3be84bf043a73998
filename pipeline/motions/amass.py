"""AMASS files (SMPL+H .npz) as motions of SMPL's 24 joints, and the writer of the same layout.

Dataset page "AMASS": z is up, bytes or str gender, a frame rate that is not a whole number,
`shape.npz` and `*_stagei.npz` are no motions. Source of poses in paper section 3.2.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

# Pelvis of the zero pose of the open body, and within a centimetre of SMPL's.
PELVIS = np.array([0.0, -0.223, 0.028])
Z_UP_TO_Y_UP = Rotation.from_euler("x", -90, degrees=True)
# SMPL+H: 22 body joints, 15 left and 15 right hand joints. SMPL's two hand joints are
# driven by the first joint of each hand.
_SMPL_IN_SMPLH = (*range(22), 22, 37)


class MotionFileError(ValueError):
    """A motion file can not be used; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Motion:
    """poses (T, 72) axis-angle of SMPL's 24 joints; trans (T, 3) metres; betas (10,); fps frames per second."""

    poses: Array
    trans: Array
    betas: Array
    gender: str
    fps: float
    name: str
    """`<dataset>/<subject>/<motion>`."""
    up: str = "z"

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def subject(self) -> str:
        """`<dataset>/<subject>`: what train and test are split by."""
        return self.name.rpartition("/")[0]

    def y_up(self, pelvis: Array = PELVIS) -> Motion:
        """The same motion with y up; z-up forward (-y of AMASS) becomes +z.

        SMPL turns about its pelvis, so `pelvis` (3,), the joint's place in the zero pose,
        is needed to turn the translation along; the default is right for the open body.
        """
        if self.up == "y":
            return self
        orient = Z_UP_TO_Y_UP * Rotation.from_rotvec(self.poses[:, :3])
        poses = np.concatenate([orient.as_rotvec(), self.poses[:, 3:]], axis=1)
        return replace(self, poses=poses, trans=Z_UP_TO_Y_UP.apply(self.trans + pelvis) - pelvis, up="y")

    def z_up(self, pelvis: Array = PELVIS) -> Motion:
        """Inverse of `y_up`."""
        if self.up == "z":
            return self
        back = Z_UP_TO_Y_UP.inv()
        poses = np.concatenate(
            [(back * Rotation.from_rotvec(self.poses[:, :3])).as_rotvec(), self.poses[:, 3:]], axis=1
        )
        return replace(self, poses=poses, trans=back.apply(self.trans + pelvis) - pelvis, up="z")

    def at_fps(self, fps: float) -> Motion:
        """Every k-th frame, k the whole number that comes nearest to the wanted rate."""
        step = max(1, round(self.fps / fps))
        return replace(self, poses=self.poses[::step], trans=self.trans[::step], fps=self.fps / step)


def read_amass(path: str | Path) -> Motion:
    """One `*_poses.npz` (SMPL+H) or `*_stageii.npz` (SMPL-X) file, z up.

    The stageii keys are read as root_orient, pose_body, pose_hand and mocap_frame_rate.
    Raises MotionFileError for a file without motion (`shape.npz`), a damaged one, or one
    with NaN.
    """
    path = Path(path)
    if is_no_motion(path):
        raise MotionFileError(f"{path}: holds a subject's shape, no motion; skip shape.npz and *_stagei.npz files.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files if not key.startswith("marker")}
    except FileNotFoundError:
        raise MotionFileError(f"{path}: no such file.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise MotionFileError(f"{path}: not a readable .npz of plain arrays ({error}); download it again.") from error

    poses = _poses(path, data)
    trans = np.asarray(_get(path, data, "trans"), np.float64)
    rate = data.get("mocap_framerate", data.get("mocap_frame_rate"))
    if rate is None:
        raise MotionFileError(f"{path}: mocap_framerate missing (found {sorted(data)}).")
    if trans.shape != (len(poses), 3):
        raise MotionFileError(f"{path}: trans has shape {trans.shape}, expected ({len(poses)}, 3) as poses has.")
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise MotionFileError(f"{path}: poses or trans hold NaN or infinity.")
    betas = np.zeros(10)
    stored = np.asarray(data.get("betas", betas), np.float64).reshape(-1)[:10]
    betas[: len(stored)] = stored
    # 120.00004577 in some files: measured by a clock, meant as 120.
    fps = float(rate)
    fps = float(round(fps)) if abs(fps - round(fps)) < 1e-2 else fps
    name = "/".join((*path.parts[-3:-1], path.stem.removesuffix("_poses").removesuffix("_stageii")))
    return Motion(poses, trans, betas, _gender(data.get("gender", "neutral")), fps, name)


def read_folder(folder: str | Path) -> Iterator[Motion]:
    """Every motion below a folder in AMASS's layout, in the order of their paths."""
    for path in sorted(Path(folder).rglob("*.npz")):
        if not is_no_motion(path):
            yield read_amass(path)


def write_amass(folder: Path, motion: Motion) -> Path:
    """Write `<dataset>/<subject>/<motion>_poses.npz` below `folder`, z up, hands flat; returns the path."""
    motion = motion.z_up()
    poses = np.zeros((len(motion), 156))
    for smpl, smplh in enumerate(_SMPL_IN_SMPLH):
        poses[:, 3 * smplh : 3 * smplh + 3] = motion.poses[:, 3 * smpl : 3 * smpl + 3]
    betas = np.zeros(16)
    betas[:10] = motion.betas
    path = folder / f"{motion.name}_poses.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        poses=poses,
        trans=motion.trans,
        betas=betas,
        dmpls=np.zeros((len(motion), 8)),
        gender=np.array(motion.gender),
        mocap_framerate=np.array(motion.fps),
    )
    aside = path.with_suffix(".part")
    aside.write_bytes(buffer.getvalue())
    aside.replace(path)
    return path


def is_no_motion(path: Path) -> bool:
    """True for the per-subject shape files that AMASS keeps beside the motions."""
    return path.name == "shape.npz" or path.name.endswith("_stagei.npz")


def _poses(path: Path, data: dict[str, NDArray]) -> Array:
    if "poses" in data:
        poses = np.asarray(data["poses"], np.float64)
        if poses.ndim != 2 or poses.shape[1] not in (72, 156, 165):
            raise MotionFileError(f"{path}: poses has shape {poses.shape}, expected (T, 156) of SMPL+H.")
        if poses.shape[1] == 72:
            return poses
        if poses.shape[1] == 165:
            # SMPL-X keeps jaw and eyes between the body and the hands.
            poses = np.delete(poses, np.s_[66:75], axis=1)
    else:
        parts = [np.asarray(_get(path, data, key), np.float64) for key in ("root_orient", "pose_body")]
        hands = data.get("pose_hand", np.zeros((len(parts[0]), 90)))
        poses = np.concatenate([*parts, hands], axis=1)
        if poses.shape[1] != 156:
            raise MotionFileError(
                f"{path}: root_orient, pose_body and pose_hand hold {poses.shape[1]} numbers, expected 156."
            )
    if not len(poses):
        raise MotionFileError(f"{path}: holds no frames.")
    return poses.reshape(len(poses), 52, 3)[:, _SMPL_IN_SMPLH].reshape(len(poses), 72)


def _get(path: Path, data: dict[str, NDArray], key: str) -> NDArray:
    if key not in data:
        raise MotionFileError(f"{path}: {key} missing; it is no AMASS motion (found {sorted(data)}).")
    return data[key]


def _gender(value: NDArray | str) -> str:
    raw = np.asarray(value).reshape(-1)[0]
    text = raw.decode() if isinstance(raw, bytes) else str(raw)
    return text if text in ("male", "female") else "neutral"
