"""One interface to every SMPL- or MANO-format body: the open ones and the licensed ones, driven by smplx.

Zero pose of a body: a T, metres, y up, facing +z, the person's left at +x (paper section
4.1 regresses these parameters; section 3.2 renders them).
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.bodies.anatomy import CIHP_NAMES, EXTRA_VERTEX_NAMES, H36M17_TO_LSP14, REGION_TO_CIHP, REGIONS
from pipeline.bodies.unpickle import BodyFileError, read_pickle

Kind = Literal["smpl", "mano"]

_REQUIRED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
_HAND_REQUIRED = ("hands_components", "hands_mean")
_NUM_JOINTS: dict[str, int] = {"smpl": 24, "mano": 16}


@dataclass(frozen=True)
class UvMap:
    """uv (T, 2) texture coordinates in [0, 1], origin bottom left; faces_uv (F, 3) their rows per face corner."""

    uv: NDArray[np.float32]
    faces_uv: NDArray[np.int32]


@dataclass(frozen=True)
class BodyOutput:
    """vertices (B, V, 3) and joints (B, 24 or 16, 3), metres."""

    vertices: Tensor
    joints: Tensor


class BodyModel(nn.Module):
    """A posable body (`smpl`) or right hand (`mano`); made by `load`.

    Attributes: kind; faces (F, 3) int64; template_vertices (V, 3); joint_regressor (J, V);
    and, where the file has them, else None: uv, face_regions (F,) into anatomy.REGIONS,
    face_parts (F,) CIHP classes of the undressed body, h36m_regressor (17, V),
    coco17_regressor (17, V), tip_vertices (5,) of a hand, shape_samples (N, 10) betas of
    real-looking people with shape_is_male (N,). mean_pose (J * 3,) axis-angle in radians, where
    the file has none: of a hand [0, 0, 0, hands_mean], which relative finger poses are counted
    from (vchoutas/smplx smplx/body_models.py, MANO.create_mean_pose), of a body zeros.
    """

    _h36m: Tensor | None
    _coco17: Tensor | None

    def __init__(self, arrays: dict[str, NDArray], kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.faces = np.asarray(arrays["f"], np.int64)
        self.template_vertices = np.asarray(arrays["v_template"], np.float64)
        self.joint_regressor = np.asarray(arrays["J_regressor"], np.float64)
        self.uv = UvMap(arrays["uv"], arrays["faces_uv"]) if "uv" in arrays else None
        self.face_regions: NDArray[np.uint8] | None = arrays.get("face_regions")
        self.face_parts = None if self.face_regions is None else _REGION_CLASSES[self.face_regions]
        self.h36m_regressor: NDArray | None = arrays.get("h36m_regressor")
        self.coco17_regressor: NDArray | None = arrays.get("coco17_regressor")
        self.tip_vertices: NDArray | None = arrays.get("tip_vertices")
        self.shape_samples: NDArray | None = arrays.get("shape_samples")
        self.shape_is_male: NDArray | None = arrays.get("shape_is_male")
        fingers = arrays.get("hands_mean", np.zeros(3 * (self.num_joints - 1)))
        self.mean_pose = np.asarray(arrays.get("mean_pose", np.concatenate([np.zeros(3), fingers])), np.float32)
        self._layer = _smplx_layer(arrays, kind)
        for name in ("h36m", "coco17"):
            rows = arrays.get(f"{name}_regressor")
            value = None if rows is None else torch.as_tensor(rows, dtype=torch.float32)
            self.register_buffer(f"_{name}", value, persistent=False)

    @property
    def num_vertices(self) -> int:
        return len(self.template_vertices)

    @property
    def num_joints(self) -> int:
        return _NUM_JOINTS[self.kind]

    def forward(
        self, betas: Tensor, body_pose: Tensor, global_orient: Tensor, transl: Tensor | None = None
    ) -> BodyOutput:
        """Posed vertices and joints.

        betas (B, 10); body_pose (B, 69) axis-angle in radians, or (B, 23, 3, 3) rotation
        matrices (hand: 45 or 15, absolute, zero = flat hand); global_orient (B, 3) or
        (B, 3, 3), about joint 0; transl (B, 3) metres, added after posing.
        """
        betas = betas.expand(len(body_pose), -1)
        rotations = (self.num_joints - 1, 3, 3)
        as_matrices = body_pose.shape[1:] == rotations and global_orient.shape[-2:] == (3, 3)
        if not as_matrices and (body_pose.shape[1:] != (rotations[0] * 3,) or global_orient.shape[1:] != (3,)):
            raise ValueError(
                f"body_pose has shape {tuple(body_pose.shape)} and global_orient {tuple(global_orient.shape)}; "
                f"expected (B, {rotations[0] * 3}) with (B, 3), or (B, {rotations[0]}, 3, 3) with (B, 3, 3)"
            )
        if not as_matrices:
            pose = torch.cat([global_orient, body_pose], dim=1).view(len(body_pose), -1, 3)
            matrices = _rotation_matrices(pose)
            body_pose, global_orient = matrices[:, 1:], matrices[:, :1]
        names = {"smpl": "body_pose", "mano": "hand_pose"}
        output = self._layer(
            betas=betas,
            global_orient=global_orient.reshape(-1, 1, 3, 3),
            transl=transl,
            **{names[self.kind]: body_pose},
        )
        return BodyOutput(output.vertices, output.joints[:, : self.num_joints])

    def lsp14(self, vertices: Tensor) -> Tensor:
        """(B, 14, 3) evaluation joints of (B, V, 3) posed vertices: LSP order, from the H36M rows."""
        return self.h36m17(vertices)[:, list(H36M17_TO_LSP14)]

    def h36m17(self, vertices: Tensor) -> Tensor:
        """(B, 17, 3) joints of posed vertices in the order of anatomy.H36M17_NAMES; row 0 is the pelvis."""
        return _regress(self._h36m, vertices, "h36m_regressor")

    def coco17(self, vertices: Tensor) -> Tensor:
        """(B, 17, 3) COCO keypoints of posed vertices, in the order of anatomy.COCO17_NAMES."""
        return _regress(self._coco17, vertices, "coco17_regressor")

    def mean_pose_6d(self) -> Tensor:
        """(J, 6) of the mean pose: where an iterative regressor starts.

        The first two columns of each rotation matrix, flattened row by row (SPIN's order).
        """
        matrices = _rotation_matrices(torch.from_numpy(self.mean_pose).view(1, -1, 3))[0]
        return matrices[:, :, :2].reshape(-1, 6)

    def sample_betas(self, rng: np.random.Generator, count: int, male: bool | None = None) -> NDArray[np.float32]:
        """(count, 10) betas of random adults: each between two of the people the model was built from, else
        standard normal."""
        if self.shape_samples is None:
            return rng.standard_normal((count, 10)).astype(np.float32)
        among = self.shape_samples if male is None else self.shape_samples[self.shape_is_male == male]
        one, other = among[rng.integers(len(among), size=(2, count))]
        return one + rng.random((count, 1), dtype=np.float32) * (other - one)


def load(path: str | Path, kind: Kind = "smpl") -> BodyModel:
    """Read a body (`smpl`) or hand (`mano`) from .npz (ours) or .pkl (official).

    Official regressors that come as separate files are looked for beside the model:
    `J_regressor_h36m.npy` (SPIN's row order) for `lsp14`.
    Raises BodyFileError (a ValueError) saying what is wrong, where, and what to do.
    """
    path = Path(path)
    if kind not in _NUM_JOINTS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(_NUM_JOINTS)}")
    if not path.is_file():
        raise BodyFileError(f"{path}: no such file; `python -m pipeline.bodies` makes the open body and hand.")
    arrays = _read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    _check(path, arrays, kind)
    beside = path.parent / "J_regressor_h36m.npy"
    if kind == "smpl" and "h36m_regressor" not in arrays and beside.is_file():
        rows = np.load(beside, allow_pickle=False)
        if rows.shape != (17, len(arrays["v_template"])):
            raise BodyFileError(
                f"{beside}: shape {rows.shape}, expected (17, {len(arrays['v_template'])}) as {path.name} has."
            )
        arrays["h36m_regressor"] = rows
    return BodyModel(arrays, kind)


def _read_npz(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise BodyFileError(f"{path}: not a readable .npz of plain arrays ({error}).") from error


def _check(path: Path, arrays: dict[str, NDArray], kind: Kind) -> None:
    if missing := [key for key in _REQUIRED if key not in arrays]:
        raise BodyFileError(
            f"{path}: {', '.join(missing)} missing; it is no body model file (found {sorted(arrays)[:12]})."
        )
    joints = np.shape(arrays["kintree_table"])[-1]
    if joints != _NUM_JOINTS[kind]:
        known = {count: name for name, count in _NUM_JOINTS.items()} | {52: "smplh", 55: "smplx"}
        found = f"{joints} joints" + (f" ({known[joints]} format)" if joints in known else "")
        raise BodyFileError(f"{path}: holds a model of {found}, expected {kind} with {_NUM_JOINTS[kind]} joints.")
    if kind == "mano" and (missing := [key for key in _HAND_REQUIRED if key not in arrays]):
        raise BodyFileError(f"{path}: {', '.join(missing)} missing; a MANO file has them.")
    vertices = len(arrays["v_template"])
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "f": (None, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
    }
    if kind == "mano":
        expected["hands_mean"] = (3 * (joints - 1),)
    for key, shape in expected.items():
        actual = np.shape(arrays[key])
        if len(actual) != len(shape) or any(want not in (None, got) for got, want in zip(actual, shape, strict=True)):
            raise BodyFileError(f"{path}: {key} has shape {actual}, expected {shape} for {vertices} vertices.")


def _smplx_layer(arrays: dict[str, NDArray], kind: Kind) -> nn.Module:
    import smplx
    from smplx.utils import Struct

    keys = _REQUIRED + (_HAND_REQUIRED if kind == "mano" else ())
    plain = {key: np.array(arrays[key]) for key in keys}
    # smplx writes -1 over the root's parent, which an unsigned table could not hold.
    plain["kintree_table"] = plain["kintree_table"].astype(np.int64)
    plain["shapedirs"] = plain["shapedirs"][:, :, :10]
    # smplx prints a warning for files of ten shape components: exactly what is wanted here.
    with contextlib.redirect_stdout(io.StringIO()):
        if kind == "mano":
            return smplx.MANOLayer(model_path="", data_struct=Struct(**plain), is_rhand=True)
        return smplx.SMPLLayer(model_path="", data_struct=Struct(**plain), vertex_ids=_vertex_ids(arrays))


def _vertex_ids(arrays: dict[str, NDArray]) -> dict[str, int] | None:
    """Vertices smplx appends to the joints: the file's own, SMPL's, or any for an unknown mesh."""
    if "vertex_ids" in arrays:
        return {name: int(index) for name, index in zip(EXTRA_VERTEX_NAMES, arrays["vertex_ids"], strict=True)}
    # None = the package's table, made for the official mesh. Another mesh needs valid ids
    # only because smplx gathers them; `forward` returns the skeleton alone.
    return None if len(arrays["v_template"]) == 6890 else dict.fromkeys(EXTRA_VERTEX_NAMES, 0)


def _regress(regressor: Tensor | None, vertices: Tensor, name: str) -> Tensor:
    if regressor is None:
        raise ValueError(f"this body has no {name}; put J_regressor_h36m.npy beside an official SMPL file")
    return torch.einsum("kv,bvc->bkc", regressor.to(vertices.dtype), vertices)


def _rotation_matrices(rotation_vectors: Tensor) -> Tensor:
    """(B, J, 3) axis-angle -> (B, J, 3, 3), by the package's own formula."""
    from smplx.lbs import batch_rodrigues

    return batch_rodrigues(rotation_vectors.reshape(-1, 3)).view(*rotation_vectors.shape[:2], 3, 3)


_REGION_CLASSES = np.array([CIHP_NAMES.index(REGION_TO_CIHP[region]) for region in REGIONS], np.uint8)
