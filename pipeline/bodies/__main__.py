"""`python -m pipeline.bodies`: builds the open body and hand of a scale and measures them."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.process import ONE_CORE, die_with_parent, plain_errors

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.bodies", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file of the scale (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not ONE_CORE.items() <= os.environ.items():
        # Sums over several threads differ in their last bits from sums over one. Linear algebra reads these once, when
        # it is loaded, and some of it is by now: the same command from its start.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ONE_CORE)
    die_with_parent()
    from pipeline.bodies.write import build  # loads torch, for which there was no need before

    with plain_errors("bodies"):
        params = run_spec.load(arguments.params)
        layout = Layout(params.scale)
        quality = build(layout, params.bodies)
    logger.info("wrote %s and %s: %s", layout.smpl, layout.mano, quality)


if __name__ == "__main__":
    main()
