"""Turning a trained module to another task: a new head, frozen layers, and both in one function."""

from flyweight.compressor.passes.transfer.transfer import Surroundings, TransferSettings, transfer

__all__ = ["Surroundings", "TransferSettings", "transfer"]
