from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.bodies.anatomy import CIHP_NAMES, REGIONS
from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body
from pipeline.bodies.build_hand import build_hand
from pipeline.bodies.model import BodyModel
from pipeline.bodies.quality import measure
from pipeline.bodies.tpose import between, roll
from pipeline.bodies.write import write_npz

Arrays = dict[str, np.ndarray]


def test_anny_keeps_nothing_outside_the_project(source: AnnySource, cache_of_anny: Path) -> None:
    assert source.bones
    assert not cache_of_anny.exists()


def test_the_body_agrees_with_annys_own_skinning_and_with_unseen_people(
    source: AnnySource, body_arrays: Arrays
) -> None:
    unseen = source.sample_adults(8, np.random.default_rng(1))
    quality = measure(source, BodyModel(body_arrays, "smpl"), body_arrays, unseen, np.random.default_rng(2))
    # 60 people here, 300 in the stage, whose quality.json holds the tighter numbers.
    assert quality["shape_mean_mm"] < 2.5
    assert quality["joints_mean_mm"] < 4
    assert quality["posed_mean_mm"] < 1.5
    assert quality["posed_with_betas_mean_mm"] < 5


def test_the_same_people_give_the_same_bytes(source: AnnySource, body_arrays: Arrays, tmp_path) -> None:
    again = build_body(source, source.sample_adults(60, np.random.default_rng(0)))
    write_npz(tmp_path / "a.npz", body_arrays)
    write_npz(tmp_path / "b.npz", again)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_mesh_is_closed_but_for_mouth_and_eyes_and_its_uv_map_fits(body_arrays: Arrays) -> None:
    faces, vertices = body_arrays["f"], body_arrays["v_template"]
    assert faces.max() == len(vertices) - 1 and len(np.unique(faces)) == len(vertices)
    assert body_arrays["faces_uv"].shape == faces.shape
    assert body_arrays["faces_uv"].max() < len(body_arrays["uv"])
    assert body_arrays["uv"].min() >= 0 and body_arrays["uv"].max() <= 1
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edge, uses = np.unique(edges, axis=0, return_counts=True)
    assert uses.max() == 2
    assert (uses == 1).sum() < 0.02 * len(edge)
    # Few vertices have several texture coordinates: the charts stayed whole.
    assert len(body_arrays["uv"]) < 1.25 * len(vertices)


def test_regions_lie_where_their_names_say(body_arrays: Arrays) -> None:
    body = BodyModel(body_arrays, "smpl")
    centre = body.template_vertices[body.faces].mean(axis=1)
    mean = {name: centre[body.face_regions == index].mean(axis=0) for index, name in enumerate(REGIONS)}
    for side, sign in (("left", 1), ("right", -1)):
        assert (
            sign * mean[f"{side}_hand"][0]
            > sign * mean[f"{side}_forearm"][0]
            > sign * mean[f"{side}_upper_arm"][0]
            > 0.1
        )
        assert mean[f"{side}_foot"][1] < mean[f"{side}_shin"][1] < mean[f"{side}_thigh"][1] < mean["hips"][1]
    assert mean["hair"][1] > mean["face"][1] > mean["neck"][1] > mean["chest"][1] > mean["abdomen"][1] > mean["hips"][1]
    assert mean["face"][2] > mean["hair"][2] + 0.02
    assert {CIHP_NAMES[part] for part in np.unique(body.face_parts)} == {
        "hair", "face", "torso_skin", "left_arm", "right_arm", "left_leg", "right_leg",
    }  # fmt: skip


def test_skinning_weights_and_regressors_are_averages(body_arrays: Arrays) -> None:
    for name in ("weights", "J_regressor", "h36m_regressor", "coco17_regressor"):
        np.testing.assert_allclose(body_arrays[name].sum(axis=1), 1, atol=1e-4)
    for name in ("weights", "h36m_regressor", "coco17_regressor"):
        assert body_arrays[name].min() >= 0


def test_the_hand_is_flat_palm_down_and_its_mean_pose_bends_the_fingers_to_the_palm(source: AnnySource) -> None:
    import torch

    arrays = build_hand(source, source.sample_adults(12, np.random.default_rng(0)), np.random.default_rng(0))
    hand = BodyModel(arrays, "mano")
    joints = hand.joint_regressor @ hand.template_vertices
    assert np.ptp(joints[1:13, 1]) < 0.02
    assert joints[0, 0] > joints[1:13, 0].max()
    assert joints[1, 2] > joints[7, 2], "index on the thumb's side of the little finger"
    components = arrays["hands_components"]
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-5)
    bent = hand(torch.zeros(1, 10), torch.from_numpy(2 * arrays["hands_mean"])[None], torch.zeros(1, 3))
    assert (
        bent.vertices[0, hand.tip_vertices[1:], 1].numpy() < hand.template_vertices[hand.tip_vertices[1:], 1] - 0.01
    ).all()


def test_smallest_rotations_and_rolls() -> None:
    rotation = between(np.array([0.0, 2.0, 0.0]), np.array([0.0, 0.0, 3.0]))
    np.testing.assert_allclose(rotation @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation @ [1, 0, 0], [1, 0, 0], atol=1e-12)
    with pytest.raises(ValueError, match="opposite"):
        between(np.array([1.0, 0, 0]), np.array([-1.0, 0, 0]))
    assert np.isclose(roll(np.array([1.0, 0, 0]), np.array([5.0, 1, 0]), np.array([0.0, 0, 1])), np.pi / 2)
