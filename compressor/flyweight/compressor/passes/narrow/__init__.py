"""Passes that build a narrower module of the same shape."""
