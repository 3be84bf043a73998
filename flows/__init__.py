"""Prefect only: order, fan-out over shards, retries, progress, artifacts and deployments.

No arithmetic and no file formats: every task calls a plain function of `pipeline`.
"""

import os

# Prefect reports home when it is first imported; this has to be said before.
os.environ["DO_NOT_TRACK"] = "1"
