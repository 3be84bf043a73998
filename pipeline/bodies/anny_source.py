"""Anny (Apache-2.0 code, CC0 assets) as plain arrays: random adults, their rest meshes and bones.

The one module of this room that imports `anny`. Everything leaves it in the axes of the
SMPL format: metres, y up, the person faces +z, their left is +x (paper section 3.2 asks
for SMPL-like bodies; these replace the licensed ones).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import csv
from scipy import sparse

Array = NDArray[np.float64]

# Anny is z-up and faces -y: (x, y, z) -> (x, z, -y).
TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

# Inside the head and never seen from outside.
HIDDEN_PARTS = ("mouth_cavity", "tongue", "eye_back.L", "eye_back.R")


@dataclass(frozen=True)
class RestShapes:
    """N people in Anny's own rest pose (arms lowered): vertices (N, V, 3), bone heads (N, B, 3)."""

    vertices: Array
    heads: Array
    is_male: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.vertices)


class AnnySource:
    """Anny's full body model; building it takes a dozen seconds."""

    def __init__(self) -> None:
        import anny

        with _read_at_once_and_kept_nowhere():
            # The original blend shapes: the compacted ones of the default are an approximation.
            self._model = anny.Anny(phenotype_blendshapes="original", topology="anny", skinning_method="lbs")
        self.bones: list[str] = list(self._model.bone_labels)
        self.parents = np.array(self._model.bone_parents)

    def bone(self, label: str) -> int:
        return self.bones.index(label)

    @cached_property
    def faces(self) -> NDArray[np.int64]:
        """(F, 3) triangles that can be seen from outside."""
        return self._model.faces.numpy()[self._visible]

    @cached_property
    def uv(self) -> NDArray[np.float64]:
        """(T, 2) texture coordinates, origin at the bottom left."""
        return self._model.texture_coordinates.numpy()

    @cached_property
    def faces_uv(self) -> NDArray[np.int64]:
        """(F, 3) rows of `uv` for the corners of `faces`."""
        return self._model.face_texture_coordinate_indices.numpy()[self._visible]

    @cached_property
    def weights(self) -> sparse.csr_array:
        """(V, B) skinning weights, rows sum to 1."""
        indices, values = self._model.vertex_bone_indices.numpy(), self._model.vertex_bone_weights.numpy()
        rows = np.repeat(np.arange(len(indices)), indices.shape[1])
        shape = (len(indices), len(self.bones))
        return sparse.csr_array((values.ravel(), (rows, indices.ravel())), shape=shape)

    def face_mask(self, *parts: str) -> NDArray[np.bool_]:
        """(F,) of `faces`: those in the named parts of Anny's segmentation."""
        return self._segmentation(parts)[self._visible]

    def keypoint_regressor(self, names: tuple[str, ...]) -> Array:
        """(K, V) rows of Anny's COCO keypoint regressors."""
        import anny

        return anny.KeypointsRegressor.coco(self._model, labels=list(names)).regression_weights.numpy()

    def sample_adults(self, count: int, rng: np.random.Generator) -> RestShapes:
        """Random adults of 18 to 80 years from Anny's distribution, calibrated to height and weight by age."""
        from anny.shape_distribution import SimpleShapeDistribution

        tables = SimpleShapeDistribution(self._model)
        years = torch.from_numpy(rng.uniform(18.0, 80.0, count))
        age = tables.morphological_age_mapping.morphological_to_anny_age(years)
        is_male = rng.random(count) < 0.5
        # Anny's gender axis runs from 0 (male) to 1 (female); real people are near its ends.
        gender = np.where(is_male, rng.uniform(0.0, 0.2, count), rng.uniform(0.8, 1.0, count))
        phenotypes = {"gender": torch.from_numpy(gender), "age": age}
        for quantity in ("height", "weight", "muscle", "proportions"):
            drawn = []
            for table in ("boys", "girls"):
                conditional = getattr(tables, f"{table}_conditional_{quantity}_distribution")
                alpha, beta = conditional.get_distribution_params(age)
                drawn.append(rng.beta(alpha.numpy(), beta.numpy()))
            phenotypes[quantity] = torch.from_numpy(np.where(is_male, drawn[0], drawn[1]))
        vertices, heads = [], []
        with torch.no_grad():
            for start in range(0, count, 50):
                part = {name: values[start : start + 50] for name, values in phenotypes.items()}
                output = self._model(phenotype_kwargs=part)
                vertices.append(output["rest_vertices"].numpy() @ TO_Y_UP.T)
                heads.append(output["rest_bone_heads"].numpy() @ TO_Y_UP.T)
        return RestShapes(np.concatenate(vertices), np.concatenate(heads), is_male)

    def skin(self, rest_vertices: Array, rest_heads: Array, rotations: Array, offsets: Array) -> Array:
        """(V, 3) Anny's own skinning code on one person: every bone moved by x -> R x + t; the yardstick of ours."""
        heads = np.einsum("bij,bj->bi", rotations, rest_heads) + offsets
        # Anny takes posed bone frames; with rest frames of identity they are the motion itself.
        rest = torch.eye(4, dtype=torch.float64).repeat(1, len(rest_heads), 1, 1)
        rest[0, :, :3, 3] = torch.from_numpy(rest_heads)
        posed = rest.clone()
        posed[0, :, :3, :3], posed[0, :, :3, 3] = torch.from_numpy(rotations), torch.from_numpy(heads)
        transforms, _ = self._model.get_bone_transforms(posed, rest, pose_parameterization="world")
        with torch.no_grad():
            return self._model.get_skinned_vertices(torch.from_numpy(rest_vertices)[None], transforms)[0].numpy()

    @cached_property
    def _visible(self) -> NDArray[np.bool_]:
        return ~self._segmentation(HIDDEN_PARTS)

    def _segmentation(self, parts: tuple[str, ...]) -> NDArray[np.bool_]:
        from anny.face_segmentation import get_face_segmentation_mask

        return get_face_segmentation_mask(self._model, list(parts)).numpy()


def pose_by_bones(vertices: Array, weights: sparse.csr_array, rotations: Array, offsets: Array) -> Array:
    """Linear blend skinning of one mesh.

    vertices (V, 3), weights (V, B), rotations (B, 3, 3) and offsets (B, 3) mapping rest to
    posed space, x -> R x + t. Returns (V, 3).
    """
    transforms = np.concatenate([rotations, offsets[:, :, None]], axis=2).reshape(len(rotations), 12)
    blended = (weights @ transforms).reshape(-1, 3, 4)
    return np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]


@contextmanager
def _read_at_once_and_kept_nowhere() -> Iterator[None]:
    """Anny reads its seven million offsets one by one, which takes minutes, and keeps what it made of them in the home
    folder, written in place: killed meanwhile it leaves half a file, which nobody can read and nothing replaces, and
    the home may not be writable. Here a file is read at once, and nothing is kept.
    """
    from anny import paths
    from anny.models import full_model

    reader, folder = full_model.load_blend_shape, paths._ANNY_CACHE_DIR
    full_model.load_blend_shape, paths._ANNY_CACHE_DIR = load_blend_shape, [None]
    try:
        yield
    finally:
        full_model.load_blend_shape, paths._ANNY_CACHE_DIR = reader, folder


_AT_ONCE = csv.ReadOptions(column_names=["number", *"xyz"], use_threads=False)
_BY_SPACES = csv.ParseOptions(delimiter=" ")
_OFFSETS = csv.ConvertOptions(column_types={"number": pa.int64()} | dict.fromkeys("xyz", pa.float64()))


def load_blend_shape(filename: str, vertices_count: int, world_transformation: Any, dtype: torch.dtype) -> torch.Tensor:
    """(V, 3) what a blend shape adds to every vertex, of a file with a line `number x y z` for each that it moves.

    Stands for Anny's own function of this name and gives the same numbers.
    """
    with gzip.open(filename, "rb") as file:
        text = file.read()
    offsets = np.zeros((vertices_count, 3))
    if text:  # some move nothing
        number, *moved = csv.read_csv(pa.BufferReader(text), _AT_ONCE, _BY_SPACES, _OFFSETS).columns
        offsets[number.to_numpy()] = np.column_stack(moved)
    return world_transformation.apply(torch.from_numpy(offsets).to(dtype))
