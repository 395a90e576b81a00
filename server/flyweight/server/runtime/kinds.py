"""Which runtime a server uses."""

from enum import StrEnum

from flyweight.server.runtime.probing import Prober
from flyweight.server.runtime.seam import RuntimeFactory


class RuntimeKind(StrEnum):
    """Where the models are held: in the server's own process, or in a worker process for each variant."""

    INLINE = "inline"
    PROCESS = "process"


def make_factory(kind: RuntimeKind, prober: Prober | None = None, turns: int = 0) -> RuntimeFactory:
    """Return the factory of a kind; what the other one needs is not imported.

    Args:
        kind: which.
        prober: measures the inline runtime's variants; a process of its own needs nobody to measure it.
        turns: how many runs go on at once; 0 for one on each core.
    """
    if kind is RuntimeKind.PROCESS:
        from flyweight.server.runtime.process.factory import ProcessFactory

        return ProcessFactory(turns=turns)
    from flyweight.server.runtime.inline import InlineFactory

    return InlineFactory(prober=prober, turns=turns)
