"""Version 1 of the manifest."""
