"""The main job on real data, run by `make demo`: train, compress, serve, split traffic, hot-load, compare."""
