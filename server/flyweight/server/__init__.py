"""The inference server: holds every variant of a model, splits traffic between them, measures each."""
