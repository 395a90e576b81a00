"""Requests become runs: one bounded queue per variant, one scheduler per server."""
