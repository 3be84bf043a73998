"""`python -m pipeline.bodies`: builds the open body and hand of a scale and measures them."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from pipeline import run_spec
from pipeline.bodies.write import build
from pipeline.layout import Layout
from pipeline.process import plain_errors

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.bodies", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file of the scale (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Sums over several threads differ in their last bits from sums over one, and linear
    # algebra reads these variables once, when it is imported: hence a fresh process.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with plain_errors("bodies"):
        params = run_spec.load(arguments.params)
        layout = Layout(params.scale)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one_thread:
            quality = one_thread.submit(build, layout, params.bodies).result()
    logger.info("wrote %s and %s: %s", layout.smpl, layout.mano, quality)


if __name__ == "__main__":
    main()
