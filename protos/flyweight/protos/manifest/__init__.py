"""What a variant says of itself on disk."""
