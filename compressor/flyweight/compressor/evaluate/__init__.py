"""Measuring a variant in onnxruntime, against its baseline, on the user's data.

Empty on purpose: the memory probe imports this package and must not carry the weight of the rest.
"""
