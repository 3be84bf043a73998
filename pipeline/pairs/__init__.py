"""Pairs of images of one person: what cross-view and cross-pose completion are trained on."""
