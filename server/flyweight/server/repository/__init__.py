"""Reading a model repository: what is on disk, when it may be believed, and what it asks to be served."""
