"""`python -m pipeline.motions`: writes the licence-free motions of a scale in AMASS's layout."""

from __future__ import annotations

import argparse
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pipeline import bodies, run_spec
from pipeline.layout import Layout
from pipeline.motions.activities import ACTIVITIES
from pipeline.motions.amass import write_amass
from pipeline.motions.generate import generate, plan
from pipeline.process import die_with_parent, num_cores, plain_errors

logger = logging.getLogger(__name__)


def write_motions(folder: Path, body: bodies.BodyModel, params: run_spec.Motions) -> list[Path]:
    """All clips as `<dataset>/subject_<nn>/<activity>_<nn>_poses.npz`; the folder holds nothing else afterwards."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    subjects = plan(params.num_subjects, params.clips_per_subject, np.random.default_rng(params.seed))

    def write_subject(number: int) -> list[Path]:
        # A generator per subject: more subjects do not change the first ones.
        rng = np.random.default_rng([params.seed, number])
        male = bool(rng.random() < 0.5)
        betas = body.sample_betas(rng, 1, male)[0]
        written = []
        for clip, (dataset, activity) in enumerate(subjects[number]):
            name = f"{dataset}/subject_{number:02d}/{activity}_{clip:02d}"
            gender = "male" if male else "female"
            keys = ACTIVITIES[dataset][activity]
            motion = generate(body, keys, rng, betas, params.seconds, params.fps, name, gender)
            written.append(write_amass(aside, motion).relative_to(aside))
        return written

    # Threads do: nearly all of the time goes into torch and numpy, which let others run meanwhile.
    with (
        tqdm(total=len(subjects) * params.clips_per_subject, unit="clip", desc="motions") as progress,
        ThreadPoolExecutor(num_cores()) as pool,
    ):
        paths = []
        for written in pool.map(write_subject, range(len(subjects))):
            paths += [folder / path for path in written]
            progress.update(len(written))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.motions", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file of the scale (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread: sums over several differ in their last bits, and files must not.
    torch.set_num_threads(1)
    die_with_parent()
    with plain_errors("motions"):
        params = run_spec.load(arguments.params)
        layout = Layout(params.scale)
        paths = write_motions(layout.motions, bodies.load(layout.smpl), params.motions)
    logger.info("wrote %d motions below %s", len(paths), layout.motions)


if __name__ == "__main__":
    main()
