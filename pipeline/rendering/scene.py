"""What is rendered and what comes out: people, one camera's view of them, the rendering.

Frames and units: metres, world with y up, cameras and pixels as in `pipeline.rendering.cameras`
(paper section 3.2: synthetic views with exact silhouettes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.rendering.cameras import Camera
from pipeline.rendering.clothes import Look

if TYPE_CHECKING:
    from pipeline.bodies.model import UvMap

Array = NDArray[np.floating]


class Surface(Protocol):
    """What can be drawn: faces (F, 3) of its vertices, and where each corner lies on a texture."""

    faces: NDArray[np.int64]
    uv: UvMap | None


@dataclass(frozen=True, eq=False)
class Person:
    """A posed body in its clothes: vertices (V, 3) and joints (J, 3) in metres, world frame, y up."""

    vertices: Array
    joints: Array
    look: Look
    mirrored: bool = False
    """Whether the body is a mirror image (a left hand of the right one): its faces run round the other way."""


@dataclass(frozen=True, eq=False)
class SceneView:
    """What one camera sees. `light` (9,) is fixed in the world; `background` (H, W, 3) sets the image size."""

    people: tuple[Person, ...]
    camera: Camera
    light: Array
    background: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Rendering:
    """One rendered view of H x W pixels; labels and ids are those of single samples, never blends."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    silhouette: NDArray[np.bool_]
    """(H, W): at least half of the pixel's samples hit a person."""
    parts: NDArray[np.uint8]
    """(H, W) CIHP class, 0 exactly where `silhouette` is False."""
    depth: NDArray[np.float32]
    """(H, W) metres along the optical axis, 0 for background."""
    person: NDArray[np.uint8]
    """(H, W) 1 + index into the scene's people, 0 for background."""
    face: NDArray[np.int32]
    """(H, W) row of the body's faces, -1 for background."""
    people_joints_2d: Array
    """(P, J, 2) pixels; NaN behind the camera; whether hidden or not."""

    @property
    def joints_2d(self) -> Array:
        """(J, 2) pixels of the only person; ValueError when there are several."""
        if len(self.people_joints_2d) != 1:
            raise ValueError(f"the view shows {len(self.people_joints_2d)} people; use people_joints_2d")
        return self.people_joints_2d[0]

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """(x, y, width, height) in pixels around the silhouette, None when nobody is seen."""
        rows, columns = np.flatnonzero(self.silhouette.any(axis=1)), np.flatnonzero(self.silhouette.any(axis=0))
        if not len(rows):
            return None
        x, y = float(columns[0]), float(rows[0])
        return x, y, float(columns[-1] + 1) - x, float(rows[-1] + 1) - y
