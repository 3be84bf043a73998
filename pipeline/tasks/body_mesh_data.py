"""Records with SMPL fits and their crops -> arrays in the camera frame of the crop, and augmented batches
(CroCo-Human Sec. 4.1; augmentation after SPIN and EFT).

Everything is relative to the person's crop: root rotations are turned into the camera frame,
3D joints are centred on the pelvis, 2D joints run from -1 to 1 over the crop, y down.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor

from models.rotations import axis_angle_to_matrix
from pipeline.bodies import SMPL_FLIP
from pipeline.crops import CropStore
from pipeline.loading.augment import jitter_and_normalize, random_colours
from pipeline.loading.crop_pixels import CropPixels
from pipeline.manifests import ManifestError, read_records
from pipeline.tasks.skeleton import Skeleton

logger = logging.getLogger(__name__)

MAX_BETA = 3.0
"""SPIN's rule for pseudo-labels: a shape with a larger coefficient is a failed fit; it becomes the mean shape.

Unlike SPIN's, its joints do as well, in space and in the image: at scale mini, where shapes are true, of 62 people in
3800, whose joints come to lie 28 mm off on average.
"""
_NEEDED = ("global_orient", "body_pose", "betas", "camera_K", "camera_R", "camera_t")


@dataclass(frozen=True)
class Bodies:
    """N true bodies, one per crop."""

    rotations: Tensor
    """(N, 24, 3, 3), root in the camera frame."""
    betas: Tensor
    """(N, 10)"""
    joints: Tensor
    """(N, 24, 3) metres, camera axes, pelvis at the origin."""
    points: Tensor
    """(N, 24, 2) the joints in the crop, -1 to 1; may lie outside."""

    def take(self, rows: Tensor) -> Bodies:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device) -> Bodies:
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Samples:
    """Crops with their bodies."""

    pixels: CropPixels
    rows: np.ndarray
    """(N,) rows of the crops file."""
    frame_ids: list[str]
    genders: list[str]
    bodies: Bodies

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop may be changed."""

    rotation_degrees: float
    """Deviation of the in-plane rotation, cut at twice that; three crops in five stay upright."""
    scale: float
    """Deviation of the zoom, cut at that."""
    colour: float
    flip: bool


@dataclass(frozen=True)
class View:
    """What is drawn at random per crop: all a batch needs besides the samples themselves."""

    angle: Tensor
    """(B,) radians, clockwise as seen."""
    zoom: Tensor
    """(B,) > 1 shows the person larger."""
    flip: Tensor
    """(B,) bool"""
    colours: Tensor
    """(B, 3) factors of brightness, contrast, saturation."""

    def take(self, rows: slice) -> View:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def read_samples(
    records: Path,
    crops: Path,
    split: str,
    limit: int,
    skeleton: Skeleton,
    max_beta: float | None = None,
    share: float = 1.0,
) -> Samples:
    """Up to `limit` samples of a split, evenly spread over the records that have a crop and a body.

    Args:
        share: take this part of them only, evenly spread as well.
        max_beta: replace shapes beyond it by the mean shape (pseudo-labels); None keeps all.

    Raises:
        ManifestError: no usable record; also whatever reading the two files raises.
    """
    table = read_records(records)
    total = table.num_rows
    table = table.filter(pc.equal(table["split"], split))
    of_split = table.num_rows
    for name in _NEEDED:
        table = table.filter(pc.is_valid(table[name]))
    with_body = table.num_rows
    store = CropStore(crops)
    rows = store.rows(table["frame_id"].to_pylist())
    table, rows = table.filter(pa.array(rows >= 0)), rows[rows >= 0]
    logger.info(
        "%s: %d records, %d of split %s, %d with body and camera, %d with a crop",
        records.name, total, of_split, split, with_body, len(rows),
    )  # fmt: skip
    if not total:
        raise ManifestError(f"{records}: no records, the dataset is not present; `make doctor` says how to get it")
    if not len(rows):
        raise ManifestError(
            f"{records}: no record of split {split!r} has body parameters, a camera and a crop in {crops}"
        )
    count = max(1, round(share * min(limit, len(rows))))
    if len(rows) > count:
        chosen = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
        table, rows = table.take(pa.array(chosen)), rows[chosen]
    squares = [store.square(int(row)) for row in rows]
    centres = torch.tensor([(square.cx, square.cy) for square in squares])
    sides = torch.tensor([square.side for square in squares])
    return Samples(
        pixels=CropPixels(crops),
        rows=rows,
        frame_ids=table["frame_id"].to_pylist(),
        genders=[gender or "neutral" for gender in table["gender"].to_pylist()],
        bodies=_bodies(table, centres.double(), sides.double(), skeleton, max_beta),
    )


def _bodies(table: pa.Table, centres: Tensor, sides: Tensor, skeleton: Skeleton, max_beta: float | None) -> Bodies:
    def column(name: str, *shape: int) -> Tensor:
        return torch.tensor(np.array(table[name].to_pylist(), np.float64)).reshape(-1, *shape)

    betas = column("betas", 10)
    if max_beta is not None:
        failed = (betas.abs() > max_beta).any(dim=1)
        betas[failed] = 0.0
        if failed.any():
            logger.info(
                "%d of %d fitted shapes are implausible and become the mean shape", int(failed.sum()), len(betas)
            )
    # A missing translation is no translation: the record's camera was fitted to that.
    transl = torch.tensor(np.array([value or [0.0] * 3 for value in table["transl"].to_pylist()]))
    world = torch.cat([column("global_orient", 1, 3), column("body_pose", 23, 3)], dim=1)
    rotations = axis_angle_to_matrix(world)
    to_camera, shift, intrinsics = column("camera_R", 3, 3), column("camera_t", 3), column("camera_K", 3, 3)
    joints = skeleton.double()(rotations, betas) + transl[:, None]
    joints = joints @ to_camera.transpose(1, 2) + shift[:, None]
    skeleton.float()
    rotations[:, 0] = to_camera @ rotations[:, 0]
    projected = joints @ intrinsics.transpose(1, 2)
    points = projected[..., :2] / projected[..., 2:]
    points = (points - centres[:, None]) / (sides[:, None, None] / 2)
    return Bodies(rotations.float(), betas.float(), (joints - joints[:, :1]).float(), points.float())


def random_views(rng: np.random.Generator, count: int, how: Augmentation) -> View:
    """Draw the changes of a batch."""
    degrees = (rng.standard_normal(count).clip(-2, 2) * how.rotation_degrees) * (rng.random(count) < 0.4)
    zoom = 1 + (rng.standard_normal(count) * how.scale).clip(-how.scale, how.scale)
    flip = (rng.random(count) < 0.5) & how.flip
    colours = random_colours(rng, count, how.colour)
    angle = torch.tensor(np.radians(degrees), dtype=torch.float32)
    return View(angle, torch.tensor(zoom, dtype=torch.float32), torch.from_numpy(flip), torch.from_numpy(colours))


def unchanged_views(count: int) -> View:
    return View(torch.zeros(count), torch.ones(count), torch.zeros(count, dtype=torch.bool), torch.ones(count, 3))


def see(images: Tensor, view: View, size: int) -> Tensor:
    """(B, S, S, 3) uint8 crops -> (B, 3, size, size) normalised.

    Outside of a stored crop is black, which turning and shrinking bring in; SPIN cuts the image again.
    """
    device = images.device
    angle, zoom = view.angle.to(device), view.zoom.to(device)
    mirror = 1 - 2 * view.flip.to(device).float()
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    zero = torch.zeros_like(cos)
    # From output to input coordinates: undo zoom and rotation, then the mirror that came first.
    theta = torch.stack([mirror * cos, mirror * sin, zero, -sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    pixels = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
    return jitter_and_normalize(pixels.round_().to(torch.uint8).permute(0, 2, 3, 1), view.colours.to(device))


def turn(bodies: Bodies, view: View) -> Bodies:
    """The bodies as the changed crops show them: mirrored, then rotated in the image plane, then zoomed."""
    device = bodies.rotations.device
    flip = view.flip.to(device)
    mirror = torch.diag(bodies.joints.new_tensor([-1.0, 1.0, 1.0]))
    order = list(SMPL_FLIP)
    rotations = torch.where(flip[:, None, None, None], mirror @ bodies.rotations[:, order] @ mirror, bodies.rotations)
    joints = torch.where(flip[:, None, None], bodies.joints[:, order] @ mirror, bodies.joints)
    points = torch.where(flip[:, None, None], bodies.points[:, order] @ mirror[:2, :2], bodies.points)
    cos, sin = torch.cos(view.angle).to(device), torch.sin(view.angle).to(device)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    plane = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    rotations = torch.cat([(plane @ rotations[:, 0])[:, None], rotations[:, 1:]], dim=1)
    joints = joints @ plane.transpose(1, 2)
    points = points @ plane[:, :2, :2].transpose(1, 2) * view.zoom.to(device)[:, None, None]
    return Bodies(rotations, bodies.betas, joints, points)
