"""Holding a model and running it: one small seam, and the ways to fill it."""
