"""A record: one image of one person, as every dataset module yields it.

Frames and units everywhere: pixels with the origin at the top-left corner of the image,
metres, seconds, radians; cameras have OpenCV axes (x right, y down, z forward) and map
world to camera by ``x_camera = R @ x_world + t``. Absent is ``None``, never zeros.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """One person in one image.

    Records of the same (sequence, subject, frame_index) seen by different cameras show one
    instant; records of the same (sequence, subject, camera) at different frame indices show
    one person over time. Pairs are made from nothing else.
    """

    dataset: str
    split: str
    """`train`, `val` or `test`, decided here once; later steps only filter by it."""
    sequence: str
    subject: str
    """Unique within (dataset, sequence); the same person may appear in several sequences."""
    camera: str
    frame_index: int
    """Counts instants of the sequence, not files: synchronised cameras share it."""
    image: str
    """Path of the image or video, relative to the dataset's root folder, with `/`."""
    width: int
    height: int
    box: tuple[float, float, float, float]
    """Person box (x, y, width, height) in pixels; may leave the image."""
    time_s: float | None = None
    video_frame: int | None = None
    """Frame number inside `image` when that is a video, else None."""
    silhouette: str | None = None
    """Path of a mask image (non-zero = person) that the dataset itself provides."""
    keypoints_2d: Array | None = None
    """(K, 3): x, y in pixels, confidence in [0, 1]; 0 = not annotated."""
    keypoint_set: str | None = None
    """Which K keypoints: `coco17`, `penn13`, `openpose18`, `body25`, `smpl24`, `spin49`, `hand21`."""
    camera_K: Array | None = None
    """(3, 3) pixels."""
    camera_R: Array | None = None
    """(3, 3) world to camera."""
    camera_t: Array | None = None
    """(3,) metres."""
    body_model: str | None = None
    """`smpl`, `mano_right` or `mano_left`: which model the parameters below belong to."""
    gender: str | None = None
    """`neutral`, `male` or `female`."""
    global_orient: Array | None = None
    """(3,) axis-angle, world frame."""
    body_pose: Array | None = None
    """Axis-angle of the joints after the root: (69,) of SMPL; (45,) of MANO, counted from its mean pose."""
    betas: Array | None = None
    """(10,) shape coefficients."""
    transl: Array | None = None
    """(3,) metres, world frame, smplx convention (added after posing)."""
    joints_3d: Array | None = None
    """(J, 3) metres, world frame."""
    label: str | None = None
    """Class label of a classification dataset."""

    def __post_init__(self) -> None:
        try:
            self._check()
        except ValueError as error:
            # Not in the message: what is left out is counted by that.
            error.add_note(f"{self.key}: box {self.box}, image {self.width}x{self.height}")
            raise

    def _check(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}, expected one of {', '.join(SPLITS)}")
        if len(self.box) != 4 or not all(np.isfinite(self.box)):
            raise ValueError("box must be four finite numbers (x, y, width, height)")
        if self.box[2] <= 0 or self.box[3] <= 0:
            raise ValueError("box has no area")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size is {self.width}x{self.height}")
        for name, shape in ARRAY_SHAPES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not matches(np.shape(value), shape):
                raise ValueError(f"{name} has shape {np.shape(value)}, expected {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} holds NaN or infinity; absent is None")
        if self.body_pose is not None and (expected := POSE_LENGTHS.get(self.body_model)) != len(self.body_pose):
            raise ValueError(f"body_pose has {len(self.body_pose)} numbers, {self.body_model} expects {expected}")

    @property
    def key(self) -> str:
        """What a message calls this record."""
        return "/".join((self.dataset, self.split, self.sequence, self.camera, f"{self.frame_index:06d}", self.subject))

    @property
    def frame_id(self) -> str:
        """Stable name of the record in every table: 16 hex digits of a hash of its key."""
        return frame_id(self.dataset, self.split, self.sequence, self.camera, self.frame_index, self.subject)


ARRAY_SHAPES: dict[str, tuple[int | None, ...]] = {
    "keypoints_2d": (None, 3),
    "camera_K": (3, 3),
    "camera_R": (3, 3),
    "camera_t": (3,),
    "global_orient": (3,),
    "body_pose": (None,),
    "betas": (10,),
    "transl": (3,),
    "joints_3d": (None, 3),
}
"""Array fields and their shapes; None = any length."""

POSE_LENGTHS: dict[str | None, int] = {"smpl": 69, "mano_right": 45, "mano_left": 45}
"""Numbers of `body_pose` by body model."""

FIELD_NAMES = tuple(field.name for field in fields(FrameRecord))


def matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(want in (None, got) for got, want in zip(shape, expected, strict=True))


def frame_id(dataset: str, split: str, sequence: str, camera: str, frame_index: int, subject: str) -> str:
    """Hash of what identifies a record; independent of machine, order and run."""
    text = "\x1f".join((dataset, split, sequence, camera, str(frame_index), subject))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
