"""Posed, dressed bodies before a background -> image, silhouette, part labels, depth.

SURREAL-style rendering (paper section 3.2). OpenGL rasterises one pass per view, twice as
fine as the image: which triangle, which texture coordinate, which normal, how far. All
colour is computed from that pass, so that image, silhouette and labels agree exactly.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.rendering.cameras import Camera
from pipeline.rendering.context import make_current
from pipeline.rendering.scene import Person, Rendering, SceneView, Surface
from pipeline.rendering.shading import FINE, reduce, shade

if TYPE_CHECKING:
    from types import TracebackType

Array = NDArray[np.floating]
__all__ = ["Person", "Renderer", "Rendering", "SceneView"]

VERTEX_SHADER = """
#version 410 core
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
uniform mat4 clip;
uniform vec4 depth_row;
out vec2 surface_uv;
out vec3 surface_normal;
out float depth;
void main() {
    gl_Position = clip * vec4(position, 1.0);
    depth = dot(depth_row, vec4(position, 1.0));
    surface_uv = uv;
    surface_normal = normal;
}
"""

FRAGMENT_SHADER = """
#version 410 core
in vec2 surface_uv;
in vec3 surface_normal;
in float depth;
uniform float person;
layout(location = 0) out vec4 where_on_surface;
layout(location = 1) out vec4 facing;
void main() {
    where_on_surface = vec4(surface_uv, float(gl_PrimitiveID + 1), depth);
    facing = vec4(surface_normal, person);
}
"""


class Renderer:
    """Draws people of one body model, or hands; a context manager.

    All renderers of a process share its one OpenGL context and keep only buffers of their
    own. Raises ValueError when the body has no texture coordinates, NoGraphics (see
    `pipeline.rendering.context`) when the machine has no OpenGL.
    """

    def __init__(self, body: Surface) -> None:
        if body.uv is None:
            raise ValueError(
                "this body has no texture coordinates, so it can not be dressed; "
                "use the open body (`python -m pipeline.bodies`)"
            )
        faces, faces_uv = np.asarray(body.faces), np.asarray(body.uv.faces_uv)
        # Along texture seams one vertex has several texture coordinates: split it there.
        corners, index = np.unique(np.stack([faces.ravel(), faces_uv.ravel()], axis=1), axis=0, return_inverse=True)
        self._num_vertices = int(faces.max()) + 1
        self._source = corners[:, 0]
        self._normals_of = _vertex_normals(faces, self._num_vertices)
        self._num_indices = faces.size
        self._size_hw = (0, 0)
        self._uploaded: Person | None = None
        make_current()
        self._create(np.asarray(body.uv.uv, np.float32)[corners[:, 1]], index.astype(np.uint32))

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the buffers back; the context stays for the next renderer."""
        from OpenGL import GL

        make_current()
        GL.glDeleteFramebuffers(1, [self._framebuffer])
        GL.glDeleteRenderbuffers(3, self._targets)
        GL.glDeleteVertexArrays(1, [self._array])
        GL.glDeleteBuffers(3, self._buffers)
        self._program.delete()

    def render(self, view: SceneView) -> Rendering:
        """Draw one view.

        Raises ValueError when vertices are not (V, 3) finite numbers of this body, or the
        background is not (H, W, 3) uint8.
        """
        background = view.background
        if background.ndim != 3 or background.shape[2] != 3 or background.dtype != np.uint8:
            raise ValueError(f"background must be (H, W, 3) uint8, got {background.shape} {background.dtype}")
        for person in view.people:
            if np.shape(person.vertices) != (self._num_vertices, 3):
                raise ValueError(f"vertices have shape {np.shape(person.vertices)}, the body has {self._num_vertices}")
        height, width = background.shape[:2]
        rendering = Rendering(
            image=background.copy(),
            silhouette=np.zeros((height, width), np.bool_),
            parts=np.zeros((height, width), np.uint8),
            depth=np.zeros((height, width), np.float32),
            person=np.zeros((height, width), np.uint8),
            face=np.full((height, width), -1, np.int32),
            people_joints_2d=np.stack([view.camera.project(person.joints) for person in view.people]),
        )
        region = _visible_region(view, (height, width))
        if region is None:
            return rendering
        surface, facing = self._rasterise(view, (height, width), region)
        fine = shade(view, surface, facing)
        inside = np.s_[region.top : region.bottom, region.left : region.right]
        reduce(rendering, inside, surface, facing, *fine)
        return rendering

    def _create(self, uv: NDArray[np.float32], index: NDArray[np.uint32]) -> None:
        from OpenGL import GL
        from pyrender.shader_program import ShaderProgram

        with tempfile.TemporaryDirectory() as folder:
            # pyrender compiles shaders from files only.
            vertex, fragment = Path(folder, "surface.vert"), Path(folder, "surface.frag")
            vertex.write_text(VERTEX_SHADER)
            fragment.write_text(FRAGMENT_SHADER)
            self._program = ShaderProgram(str(vertex), str(fragment))
            self._program._add_to_context()
        self._array = GL.glGenVertexArrays(1)
        GL.glBindVertexArray(self._array)
        self._buffers = GL.glGenBuffers(3)
        moving, fixed, indices = self._buffers
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, moving)
        GL.glBufferData(GL.GL_ARRAY_BUFFER, len(uv) * 24, None, GL.GL_DYNAMIC_DRAW)
        for location in (0, 1):
            GL.glEnableVertexAttribArray(location)
            GL.glVertexAttribPointer(location, 3, GL.GL_FLOAT, GL.GL_FALSE, 24, ctypes.c_void_p(12 * location))
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, fixed)
        GL.glBufferData(GL.GL_ARRAY_BUFFER, uv.nbytes, np.ascontiguousarray(uv), GL.GL_STATIC_DRAW)
        GL.glEnableVertexAttribArray(2)
        GL.glVertexAttribPointer(2, 2, GL.GL_FLOAT, GL.GL_FALSE, 0, ctypes.c_void_p(0))
        GL.glBindBuffer(GL.GL_ELEMENT_ARRAY_BUFFER, indices)
        GL.glBufferData(GL.GL_ELEMENT_ARRAY_BUFFER, index.nbytes, np.ascontiguousarray(index), GL.GL_STATIC_DRAW)
        self._framebuffer = GL.glGenFramebuffers(1)
        self._targets = GL.glGenRenderbuffers(3)

    def _resize(self, size_hw: tuple[int, int]) -> None:
        """Make the buffers large enough for such an image."""
        from OpenGL import GL

        if (np.asarray(size_hw) <= self._size_hw).all():
            return
        height, width = self._size_hw = tuple(np.maximum(size_hw, self._size_hw).tolist())
        attachments = (GL.GL_COLOR_ATTACHMENT0, GL.GL_COLOR_ATTACHMENT1, GL.GL_DEPTH_ATTACHMENT)
        formats = (GL.GL_RGBA32F, GL.GL_RGBA32F, GL.GL_DEPTH_COMPONENT32F)
        for target, attachment, storage in zip(self._targets, attachments, formats, strict=True):
            GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, target)
            GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, storage, FINE * width, FINE * height)
            GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, attachment, GL.GL_RENDERBUFFER, target)
        GL.glDrawBuffers(2, attachments[:2])
        status = GL.glCheckFramebufferStatus(GL.GL_FRAMEBUFFER)
        if status != GL.GL_FRAMEBUFFER_COMPLETE:
            raise RuntimeError(f"the OpenGL driver refuses float images of {width}x{height} ({status})")

    def _upload(self, person: Person) -> None:
        """Bring the posed vertices to OpenGL, unless they are those of the last view already."""
        from OpenGL import GL

        if person is self._uploaded:
            return
        vertices = np.asarray(person.vertices, np.float32)
        if not np.isfinite(vertices).all():
            raise ValueError("vertices hold NaN or infinity")
        normals = -self._normals_of(vertices) if person.mirrored else self._normals_of(vertices)
        both = np.concatenate([vertices, normals], axis=1)[self._source]
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, self._buffers[0])
        GL.glBufferSubData(GL.GL_ARRAY_BUFFER, 0, both.nbytes, both)
        self._uploaded = person

    def _rasterise(
        self, view: SceneView, size_hw: tuple[int, int], region: _Region
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(h, w, 4) u, v, face + 1, depth and (h, w, 4) normal, person + 1 of the samples of `region`."""
        from OpenGL import GL

        make_current()
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self._framebuffer)
        self._resize(size_hw)
        box = (FINE * region.left, FINE * region.top, FINE * region.width, FINE * region.height)
        GL.glViewport(0, 0, FINE * size_hw[1], FINE * size_hw[0])
        GL.glEnable(GL.GL_SCISSOR_TEST)
        GL.glScissor(*box)
        GL.glEnable(GL.GL_DEPTH_TEST)
        GL.glDisable(GL.GL_BLEND)
        # Bodies are closed, so nobody sees a face from within.
        GL.glEnable(GL.GL_CULL_FACE)
        GL.glClearColor(0.0, 0.0, 0.0, 0.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT | GL.GL_DEPTH_BUFFER_BIT)
        self._program._bind()
        self._program.set_uniform("clip", _clip_matrix(view.camera, size_hw, region.near, region.far))
        self._program.set_uniform("depth_row", np.append(view.camera.R[2], view.camera.t[2]).astype(np.float32))
        GL.glBindVertexArray(self._array)
        for number, person in enumerate(view.people, start=1):
            self._upload(person)
            # Clip space is upside down: it turns the corners round.
            GL.glFrontFace(GL.GL_CCW if person.mirrored else GL.GL_CW)
            self._program.set_uniform("person", float(number))
            GL.glDrawElements(GL.GL_TRIANGLES, self._num_indices, GL.GL_UNSIGNED_INT, None)
        samples = []
        for attachment in (GL.GL_COLOR_ATTACHMENT0, GL.GL_COLOR_ATTACHMENT1):
            # Clip space has y down like the image, so the first row OpenGL returns is the top one.
            GL.glReadBuffer(attachment)
            values = np.empty((box[3], box[2], 4), np.float32)
            GL.glReadPixels(*box, GL.GL_RGBA, GL.GL_FLOAT, values)
            samples.append(values)
        return samples[0], samples[1]


@dataclass(frozen=True)
class _Region:
    """The part of the image, in pixels, and of the depth, in metres, that people can cover."""

    left: int
    top: int
    right: int
    bottom: int
    near: float
    far: float

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def _visible_region(view: SceneView, size_hw: tuple[int, int]) -> _Region | None:
    height, width = size_hw
    points = np.concatenate([view.camera.to_camera(p.vertices).T for p in view.people], axis=1)
    near, far = float(points[2].min()), float(points[2].max())
    if far <= 0.05:
        return None
    low, high = np.zeros(2), np.array([width, height], np.float64)
    if near > 0.05:
        # A point behind the camera has no pixel; then the whole frame is drawn.
        pixels = view.camera.K[:2] @ points / points[2]
        low, high = np.maximum(pixels.min(axis=1), 0), np.minimum(pixels.max(axis=1), high)
        if (low >= high).any():
            return None
    left, top = np.floor(low).astype(int).tolist()
    right, bottom = np.ceil(high).astype(int).tolist()
    return _Region(left, top, right, bottom, near=max(0.05, 0.95 * near), far=1.05 * far)


def _clip_matrix(camera: Camera, size_hw: tuple[int, int], near: float, far: float) -> NDArray[np.float32]:
    """(4, 4) world to clip space, image rows downwards, pixel (0, 0) from corner (0, 0) to (1, 1)."""
    height, width = size_hw
    K = camera.K
    projection = np.zeros((4, 4))
    projection[0, :3] = 2 * K[0] / width - K[2]
    projection[1, :3] = 2 * K[1] / height - K[2]
    projection[2, 2:] = (far + near) / (far - near), -2 * far * near / (far - near)
    projection[3, 2] = 1.0
    extrinsic = np.eye(4)
    extrinsic[:3, :3], extrinsic[:3, 3] = camera.R, camera.t
    return (projection @ extrinsic).astype(np.float32)


def _vertex_normals(
    faces: NDArray[np.integer], num_vertices: int
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Function (V, 3) vertices -> (V, 3) unit normals, area-weighted means of the faces around."""
    rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    gather = sparse.csr_array((np.ones(faces.size, np.float32), (rows, columns)), shape=(num_vertices, len(faces)))

    def normals(vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        a, b, c = vertices.T[:, faces.T].swapaxes(0, 1)
        summed = gather @ np.cross(b - a, c - a, axis=0).T
        return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)

    return normals
