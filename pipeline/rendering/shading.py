"""Samples of a rasterised view -> pixels: texture times light, averaged; labels picked, never blended.

Texture and spherical-harmonic light as SURREAL has them (paper section 3.2).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.rendering.light import irradiance
from pipeline.rendering.scene import Rendering, SceneView

# Samples per pixel and axis. Two halve the width of the jagged outline at a quarter of the cost of four.
FINE = 2


def shade(
    view: SceneView, surface: NDArray[np.float32], facing: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Colour (h, w, 3) in 0..255 and label (h, w) of every sample; zero where nobody is."""
    height, width = surface.shape[:2]
    surface, facing = surface.reshape(-1, 4), facing.reshape(-1, 4)
    colour = np.zeros((len(surface), 3), np.float32)
    label = np.zeros(len(surface), np.uint8)
    for number, person in enumerate(view.people, start=1):
        hit = np.flatnonzero(facing[:, 3] == number)
        if not len(hit):
            continue
        texture, labels = person.look.texture, person.look.labels
        side = len(texture)
        # Texture rows run downwards while v runs upwards; texel centres lie at half numbers.
        u, v = surface[hit, 0] * side, (1.0 - surface[hit, 1]) * side
        albedo = cv2.remap(
            texture, *_as_grid(u - 0.5, v - 0.5), interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).reshape(-1, 3)[: len(hit)]
        normal = facing[hit, :3].T.copy()
        normal /= np.maximum(np.sqrt((normal**2).sum(axis=0)), 1e-12)
        colour[hit] = np.minimum(albedo * irradiance(normal.T, view.light)[:, None], 255.0)
        nearest_u, nearest_v = u.astype(np.int32).clip(0, side - 1), v.astype(np.int32).clip(0, side - 1)
        label[hit] = labels[nearest_v, nearest_u]
    return colour.reshape(height, width, 3), label.reshape(height, width)


def _as_grid(u: NDArray[np.float32], v: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two lists as images of 256 columns: OpenCV refuses sides from 32768 on."""
    padding = -len(u) % 256
    return np.pad(u, (0, padding)).reshape(-1, 256), np.pad(v, (0, padding)).reshape(-1, 256)


def _planes(samples: NDArray) -> NDArray:
    """(h FINE, w FINE) -> (FINE², h, w): the samples of each pixel, those at the same place within it together."""
    return np.stack([samples[row::FINE, column::FINE] for row in range(FINE) for column in range(FINE)])


def reduce(
    rendering: Rendering,
    inside: tuple[slice, slice],
    surface: NDArray[np.float32],
    facing: NDArray[np.float32],
    colour: NDArray[np.float32],
    label: NDArray[np.uint8],
) -> None:
    """Average the colour of each pixel's samples over the background; pick one sample for the rest."""
    labels, people = _planes(label), _planes(facing[..., 3])
    hit = people > 0
    covered = hit.mean(axis=0, dtype=np.float32)
    height, width = covered.shape
    mean = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
    # Where nobody is, this gives the background back unchanged.
    rendering.image[inside] = mean + (1 - covered)[..., None] * rendering.image[inside] + 0.5
    silhouette = covered >= 0.5
    # The sample whose label most samples of the pixel share (the first of equals).
    votes = ((labels[:, None] == labels) & hit).sum(axis=1, dtype=np.uint8) * hit
    chosen = votes.argmax(axis=0)[None]

    def pick(planes: NDArray) -> NDArray:
        return np.take_along_axis(planes, chosen, axis=0)[0] * silhouette

    rendering.silhouette[inside] = silhouette
    rendering.parts[inside] = pick(labels)
    rendering.person[inside] = pick(people)
    rendering.depth[inside] = pick(_planes(surface[..., 3]))
    rendering.face[inside] = pick(_planes(surface[..., 2])).astype(np.int32) - 1
