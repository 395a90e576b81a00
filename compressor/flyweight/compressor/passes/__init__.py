"""Transformations of a model, one file each."""
