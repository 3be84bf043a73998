"""`python -m pipeline.datasets`: write a stand-in, index a dataset, check the layout of real data."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from pipeline import run_spec
from pipeline.datasets import get, names
from pipeline.datasets.index import index
from pipeline.datasets.standin import write_standin
from pipeline.layout import Layout
from pipeline.process import plain_errors


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.datasets", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file of the scale (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, meaning in {
        "standin": "render the stand-in into data/<scale>/standins/<dataset>",
        "index": "read the dataset into data/<scale>/records/<dataset>.parquet",
        "check": "say what is wrong with the layout of data/raw/<dataset>",
    }.items():
        sub = commands.add_parser(command, help=meaning, description=meaning)
        sub.add_argument("--dataset", required=True, choices=names(), help="which dataset")
        sub.add_argument("--params", default=argparse.SUPPRESS, help="params file of the scale (default: params.yaml)")
        if command == "standin":
            sub.add_argument("--processes", type=int, help="parallel processes (default: one per core)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with plain_errors(arguments.command):
        params = run_spec.load(arguments.params)
        layout = Layout(params.scale)
        if arguments.command == "standin":
            print(write_standin(arguments.dataset, layout, params, processes=arguments.processes))
        elif arguments.command == "index":
            print(json.dumps(index(arguments.dataset, layout, params), indent=1))
        else:
            problems = get(arguments.dataset).source.check(layout.raw(arguments.dataset))
            print("\n".join(problems) or f"{layout.raw(arguments.dataset)}: the layout is right")
            return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
