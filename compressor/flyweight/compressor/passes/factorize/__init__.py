"""Passes that replace a layer by two or three thinner ones whose product it nearly is."""
