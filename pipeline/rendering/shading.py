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
    colour = np.zeros((*surface.shape[:2], 3), np.float32)
    label = np.zeros(surface.shape[:2], np.uint8)
    for number, person in enumerate(view.people, start=1):
        rows, columns = np.nonzero(facing[..., 3] == number)
        if not len(rows):
            continue
        texture, labels = person.look.texture, person.look.labels
        side = len(texture)
        # Texture rows run downwards while v runs upwards; texel centres lie at half numbers.
        u, v = surface[rows, columns, 0] * side, (1.0 - surface[rows, columns, 1]) * side
        albedo = cv2.remap(
            texture, *_as_grid(u - 0.5, v - 0.5), interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).reshape(-1, 3)[: len(rows)]
        normal = facing[rows, columns, :3]
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        colour[rows, columns] = np.minimum(albedo * irradiance(normal, view.light)[:, None], 255.0)
        nearest_u, nearest_v = u.astype(np.int32).clip(0, side - 1), v.astype(np.int32).clip(0, side - 1)
        label[rows, columns] = labels[nearest_v, nearest_u]
    return colour, label


def _as_grid(u: NDArray[np.float32], v: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two lists as images of 256 columns: OpenCV refuses sides from 32768 on."""
    padding = -len(u) % 256
    return np.pad(u, (0, padding)).reshape(-1, 256), np.pad(v, (0, padding)).reshape(-1, 256)


def _blocks(samples: NDArray) -> NDArray:
    """(h FINE, w FINE, ...) -> (h, w, FINE², ...): the samples of each pixel."""
    height, width = samples.shape[0] // FINE, samples.shape[1] // FINE
    tail = samples.shape[2:]
    return samples.reshape(height, FINE, width, FINE, *tail).swapaxes(1, 2).reshape(height, width, FINE * FINE, *tail)


def reduce(
    rendering: Rendering,
    inside: tuple[slice, slice],
    surface: NDArray[np.float32],
    facing: NDArray[np.float32],
    colour: NDArray[np.float32],
    label: NDArray[np.uint8],
) -> None:
    """Average the colour of each pixel's samples over the background; pick one sample for the rest."""
    labels, people = _blocks(label), _blocks(facing[..., 3])
    hit = people > 0
    count = hit.sum(axis=2)
    behind = rendering.image[inside].astype(np.float32)
    samples = FINE * FINE
    blended = (_blocks(colour).sum(axis=2) + (samples - count)[..., None] * behind) / samples
    # Where nobody is, this gives the background back unchanged.
    rendering.image[inside] = np.floor(blended + 0.5).astype(np.uint8)
    silhouette = 2 * count >= samples
    # The sample whose label most samples of the pixel share (the first of equals).
    votes = ((labels[..., :, None] == labels[..., None, :]) & hit[..., None, :]).sum(axis=3) * hit
    chosen = votes.argmax(axis=2)[..., None]

    def pick(values: NDArray) -> NDArray:
        return np.take_along_axis(values, chosen, axis=2)[..., 0] * silhouette

    rendering.silhouette[inside] = silhouette
    rendering.parts[inside] = pick(labels)
    rendering.person[inside] = pick(people)
    rendering.depth[inside] = pick(_blocks(surface[..., 3]))
    rendering.face[inside] = pick(_blocks(surface[..., 2])).astype(np.int32) - 1
