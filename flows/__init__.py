"""Prefect only: order, fan-out over shards, retries, progress, artifacts and deployments.

No arithmetic and no file formats: every task calls a plain function of `pipeline`.
"""

import os

from pipeline.layout import PROJECT

# Prefect reports home when it is first imported, and makes a folder in its user's home; this has to be said before.
os.environ["DO_NOT_TRACK"] = "1"
if "PREFECT_API_URL" not in os.environ:  # the key to a server of one's own may lie in that folder
    os.environ.setdefault("PREFECT_HOME", str(PROJECT / ".prefect"))
