"""What is drawn lies where the camera says, agrees with itself and can be drawn again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.bodies.anatomy import CIHP_NAMES
from pipeline.bodies.model import BodyModel
from pipeline.rendering import context
from pipeline.rendering.cameras import framed, look_at
from pipeline.rendering.renderer import Person, Renderer, Rendering, SceneView, _vertex_normals

AMBIENT = np.array([1.0, -0.3, 0, 0, 0, 0, 0, 0, 0], np.float32)
SIZE = (120, 96)


@pytest.fixture(scope="module")
def renderer(body: BodyModel) -> Iterator[Renderer]:
    with Renderer(body) as renderer:
        yield renderer


def photograph(person: Person, azimuth: float = 0.0, size_hw: tuple[int, int] = SIZE) -> SceneView:
    camera = framed(person.vertices, azimuth, 0.15, 0.9, size_hw)
    background = np.random.default_rng(0).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    return SceneView((person,), camera, AMBIENT, background)


def everything(rendering: Rendering) -> bytes:
    return b"".join(
        getattr(rendering, name).tobytes()
        for name in ("image", "silhouette", "parts", "depth", "person", "face", "people_joints_2d")
    )


def test_the_same_view_gives_the_same_bytes_from_another_renderer_after_other_sizes(
    body: BodyModel, renderer: Renderer, person: Person
) -> None:
    view = photograph(person)
    first = everything(renderer.render(view))
    for size in ((40, 40), (200, 150)):
        renderer.render(photograph(person, size_hw=size))
    assert everything(renderer.render(view)) == first
    with Renderer(body) as other:
        assert everything(other.render(view)) == first


def test_silhouette_parts_person_face_and_depth_cover_the_same_pixels(renderer: Renderer, person: Person) -> None:
    rendering = renderer.render(photograph(person))
    shown = rendering.silhouette
    assert 0.05 < shown.mean() < 0.6
    for covered in (rendering.parts > 0, rendering.person > 0, rendering.face >= 0, rendering.depth > 0):
        np.testing.assert_array_equal(covered, shown)


def test_the_background_stays_as_it_was_away_from_the_person(renderer: Renderer, person: Person) -> None:
    view = photograph(person)
    rendering = renderer.render(view)
    x, y, width, height = rendering.box
    away = np.ones(SIZE, bool)
    away[max(int(y) - 1, 0) : int(y + height) + 1, max(int(x) - 1, 0) : int(x + width) + 1] = False
    assert away.sum() > 500
    np.testing.assert_array_equal(rendering.image[away], view.background[away])


@pytest.mark.parametrize("azimuth", [0.0, 2.0])
def test_each_pixel_shows_a_face_that_projects_onto_it_at_the_depth_it_tells(
    body: BodyModel, renderer: Renderer, person: Person, azimuth: float
) -> None:
    view = photograph(person, azimuth)
    rendering = renderer.render(view)
    rows, columns = np.nonzero(rendering.silhouette)
    corners = person.vertices[body.faces[rendering.face[rows, columns]]].astype(np.float64)
    centre = corners.mean(axis=1)
    # The longest edge bounds how far the middle of a face is from the pixel it covers.
    reach = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)
    depth = view.camera.to_camera(centre)[:, 2]
    pixels = np.stack([columns, rows], axis=1) + 0.5
    off = np.linalg.norm(view.camera.project(centre) - pixels, axis=1)
    assert (off <= 1.0 + 1.2 * reach * view.camera.K[0, 0] / depth).all()
    assert (np.abs(rendering.depth[rows, columns] - depth) <= 1.01 * reach + 1e-3).all()
    outwards = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (outwards * (view.camera.centre - centre)).sum(axis=1).min() > -1e-6


def test_the_left_arm_is_on_the_right_of_the_image_seen_from_the_front_and_on_the_left_from_behind(
    renderer: Renderer, person: Person
) -> None:
    bare = replace(person.look, labels=person.look.labels.copy())
    for azimuth, sign in ((0.0, 1), (np.pi, -1)):
        rendering = renderer.render(photograph(replace(person, look=bare), azimuth))
        wrists = rendering.joints_2d[[20, 21], 0]
        assert sign * (wrists[0] - wrists[1]) > 10
        for left, right in (("left_arm", "right_arm"), ("left_shoe", "right_shoe")):
            places = [np.nonzero(rendering.parts == CIHP_NAMES.index(name))[1] for name in (left, right)]
            if all(len(place) for place in places):
                assert sign * (places[0].mean() - places[1].mean()) > 5


def test_joints_lie_inside_the_silhouette(renderer: Renderer, person: Person) -> None:
    rendering = renderer.render(photograph(person))
    columns, rows = np.floor(rendering.joints_2d[:22]).astype(int).T
    assert rendering.silhouette[rows, columns].mean() > 0.9


def test_the_nearer_of_two_people_hides_the_farther(renderer: Renderer, person: Person) -> None:
    view = photograph(person)
    back = np.array([0, 0, -0.8])
    behind = replace(person, vertices=person.vertices + back, joints=person.joints + back)
    for order, nearer in (((person, behind), 1), ((behind, person), 2)):
        rendering = renderer.render(replace(view, people=order))
        counts = np.bincount(rendering.person.ravel(), minlength=3)
        assert counts[nearer] > 2 * counts[3 - nearer]
        assert rendering.people_joints_2d.shape == (2, 24, 2)
        with pytest.raises(ValueError, match="2 people"):
            _ = rendering.joints_2d


def test_a_person_behind_the_camera_or_beside_the_frame_leaves_the_background(
    renderer: Renderer, person: Person
) -> None:
    view = photograph(person)
    for target in ((0, 0, 20.0), (30.0, 0, 10)):
        camera = look_at(np.array([0, 0, 10.0]), np.array(target), SIZE, 150.0)
        rendering = renderer.render(replace(view, camera=camera))
        np.testing.assert_array_equal(rendering.image, view.background)
        assert rendering.box is None


def test_light_from_above_brightens_the_crown_and_darkens_what_faces_down(renderer: Renderer, person: Person) -> None:
    white = replace(person.look, texture=np.full_like(person.look.texture, 255))
    view = photograph(replace(person, look=white))
    even = np.array([0.5, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)
    above = even + np.array([0, -0.4, 0, 0, 0, 0, 0, 0, 0], np.float32)
    before, after = (renderer.render(replace(view, light=light)) for light in (even, above))
    change = (after.image.astype(int) - before.image)[..., 0]
    crown = before.silhouette & (np.indices(SIZE)[0] < before.box[1] + 3)
    assert change[crown].mean() > 20
    assert change[before.silhouette].min() < -10


def test_normals_of_a_sphere_point_outwards() -> None:
    sphere = trimesh.creation.icosphere(3)
    normals = _vertex_normals(sphere.faces, len(sphere.vertices))(sphere.vertices.astype(np.float32))
    np.testing.assert_allclose(normals, sphere.vertices, atol=0.02)


def test_wrong_vertices_and_backgrounds_are_refused_by_name(renderer: Renderer, person: Person) -> None:
    view = photograph(person)
    with pytest.raises(ValueError, match=r"vertices have shape \(10, 3\)"):
        renderer.render(replace(view, people=(replace(person, vertices=person.vertices[:10]),)))
    broken = person.vertices.copy()
    broken[7] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        renderer.render(replace(view, people=(replace(person, vertices=broken),)))
    with pytest.raises(ValueError, match="uint8"):
        renderer.render(replace(view, background=view.background.astype(np.float32)))


def test_a_body_without_texture_coordinates_is_refused(body: BodyModel) -> None:
    class Bare:
        faces, uv = body.faces, None

    with pytest.raises(
        ValueError, match=r"no texture coordinates.*; use the open body \(`python -m pipeline\.bodies`\)$"
    ):
        Renderer(Bare())


def test_a_machine_without_opengl_is_told_which_packages_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrender.platforms.egl", None)
    with pytest.raises(context.NoGraphics, match=r"apt-get install -y libegl1 libgl1 libgl1-mesa-dri libglib2.0-0"):
        context._platform.__wrapped__()
