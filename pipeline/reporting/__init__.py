"""Metrics files, histories and pictures of one scale -> tables, figures, claims and the page.

The page opens with Figure 3(a) of the paper; every number on it leads back to the files and
the command behind it.
"""
