"""The Prefect UI with one button per flow: server on the loopback address and a deployment of each flow.

Ctrl-C stops taking runs and, unless another flow uses it, the server.
"""

from __future__ import annotations

import argparse
import os
from typing import cast

from flows import local_server, process


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m flows.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        with process.server_in_use():
            url = local_server.up()
            # A run starts this soon after the button; Prefect's own default is ten seconds.
            os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "2")
            process.sweep()
            serve(local_server.ui_address(url))
    finally:
        if process.stop_idle_server():
            print("Prefect server stopped")


def serve(ui: str) -> None:
    """Deploy every flow and take runs until stopped."""
    import prefect
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.flows import EntrypointType

    from flows.doctor import doctor
    from flows.download import download
    from flows.import_weights import import_weights
    from flows.index import index
    from flows.pair import pair
    from flows.parse import parse
    from flows.render import render
    from flows.report import report
    from flows.reproduce import reproduce
    from flows.train import train

    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    everything = (reproduce, download, render, index, parse, pair, import_weights, train, report, doctor)
    deployments = [
        flow.to_deployment(
            flow.name,
            description=flow.description,
            concurrency_limit=one_at_a_time,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in everything
    ]
    print(f"\nPrefect UI: {ui}/deployments   (Ctrl-C to stop)\n", flush=True)
    prefect.serve(*cast(list[RunnerDeployment], deployments), limit=4, print_starting_message=False)


if __name__ == "__main__":
    main()
