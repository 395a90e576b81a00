"""Among whom the least important channels or weights are chosen."""

from enum import Enum


class Scope(Enum):
    """Among whom the least important are chosen."""

    LAYER = "layer"
    """Each layer loses the same fraction."""

    GLOBAL = "global"
    """One ranking across layers: a layer loses as much as it holds of what is least important."""

    LAMP = "lamp"
    """One ranking of single weights across layers, by their part of what their layer has left; see
    `masks.lamp_scores`. No layer runs dry."""

    SENSITIVITY = "sensitivity"
    """Each layer loses as much as the measured harm to the answers allows."""
