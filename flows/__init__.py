"""Prefect only: order, fan-out over shards, retries, progress, artifacts and deployments.

No arithmetic and no file formats: every task calls a plain function of `pipeline`.
"""
