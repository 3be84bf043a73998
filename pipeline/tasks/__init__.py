"""Downstream tasks of the paper: one file each for data, head, loss, metrics and drawing."""
