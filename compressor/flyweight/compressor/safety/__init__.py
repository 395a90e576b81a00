"""Checks that a variant is no more dangerous than the model it was made from."""
