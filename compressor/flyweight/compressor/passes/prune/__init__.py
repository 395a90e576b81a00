"""Passes that remove parts of a torch module."""
