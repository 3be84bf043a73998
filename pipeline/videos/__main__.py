"""`python -m pipeline.videos`: a folder of videos to crops, silhouettes and pairs, with contact sheets."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.silhouettes import load_parser
from pipeline.videos import KINDS, completing_network, find_videos, pair_videos, parse_videos
from pipeline.videos.sheets import write_sheets


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.videos",
        description="Find persons in a folder of your own videos, follow them, cut them out and pair them for "
        "pre-training; complete a sample of the pairs with the pre-trained network. Writes records.parquet, "
        "crops.arrow, pairs.parquet, tracks.png, pairs.png, completions.png and summary.json.",
        epilog="Videos in a sub-folder are taken for synchronised views of one recording. Better boxes than those "
        "found here: put a MOT Challenge text file beside a video (clip.mp4, clip.txt).",
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--params", default="params.yaml", help="crops and choice of pairs (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=5.0, help="frames per second looked at (default: %(default)s)")
    parser.add_argument(
        "--pgn",
        type=Path,
        help="checkpoint of the human parser for silhouettes (default: the one of this scale, if trained)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="network that completes a sample of the pairs (default: croco_body of this scale, if trained)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        summary = run(arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary, indent=2))
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Mapping[str, float]]:
    params = run_spec.load(arguments.params)
    checkpoint = arguments.pgn or Layout(params.scale).checkpoint("pgn")
    pgn = load_parser(checkpoint) if arguments.pgn or checkpoint.is_dir() else None
    with tqdm(total=len(find_videos(arguments.videos)), unit="video", desc="find persons") as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        parsed = parse_videos(
            arguments.videos,
            arguments.out,
            crops=params.crops,
            rate=arguments.fps,
            parser=pgn,
            progress=progress,
        )
    out: Path = arguments.out
    paired = pair_videos(out, params.pairs)
    files = out / "records.parquet", out / "crops.arrow", out / "pairs.parquet"
    write_sheets(*files, out)
    losses: dict[str, float] = {}
    if (network := completing_network(arguments.checkpoint, params)) and any(map(paired.get, KINDS)):
        # torch loads in seconds, and only here.
        from pipeline.videos.completions import complete_pairs

        losses = complete_pairs(network, *files, out, params).losses
    summary: dict[str, Mapping[str, float]] = {"parse": parsed, "pair": paired, "completion_losses": losses}
    aside = arguments.out / ".summary.json.tmp"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.replace(arguments.out / "summary.json")
    return summary


if __name__ == "__main__":
    sys.exit(main())
