"""Clients for the Open Inference Protocol: numpy in, numpy out."""
