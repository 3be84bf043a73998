"""How many views per second one process renders;
`pytest -n 0 -s tests/benchmarks/test_rendering_speed.py` prints it."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body
from pipeline.bodies.model import BodyModel
from pipeline.rendering.cameras import sample_around
from pipeline.rendering.clothes import random_look
from pipeline.rendering.light import random_light
from pipeline.rendering.renderer import Person, Renderer, SceneView

SCENES, VIEWS = 12, 8
SIZE = (112, 112)


@pytest.mark.slow
def test_one_process_renders_dozens_of_views_per_second() -> None:
    os.environ.setdefault("LP_NUM_THREADS", "1")
    rng = np.random.default_rng(0)
    source = AnnySource()
    body = BodyModel(build_body(source, source.sample_adults(12, rng)), "smpl")
    poses = torch.as_tensor(body.mean_pose)[None] + 0.2 * torch.randn(
        SCENES, 72, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        out = body(torch.zeros(1, 10), poses[:, 3:], poses[:, :3])
    looks = [random_look(rng, body) for _ in range(SCENES)]
    people = [Person(v, j, look) for v, j, look in zip(out.vertices.numpy(), out.joints.numpy(), looks, strict=True)]
    background = np.full((*SIZE, 3), 128, np.uint8)
    views = [
        SceneView((person,), camera, random_light(rng), background)
        for person in people
        for camera in sample_around(rng, person.vertices, SIZE, VIEWS)
    ]
    with Renderer(body) as renderer:
        renderer.render(views[0])
        wall, cpu = time.perf_counter(), time.process_time()
        for view in views:
            renderer.render(view)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate = len(views) / wall
    print(f"\n{rate:.0f} views/s of {SIZE[1]}x{SIZE[0]} px, {1000 * cpu / len(views):.1f} ms of one core per view")
    # An idle core reaches more than a hundred; a busy machine must not fail this.
    assert rate > 10
