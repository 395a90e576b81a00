"""Where a worker begins: with almost nothing, for what it imports may have to give way to traffic.

The main thread keeps its priority, and the threads that serve are born with it; only what brings the session
up is done aside.
"""

from importlib import import_module
from typing import Final

from flyweight.server.runtime.priority import do_aside

GIVE_WAY: Final = "--give-way"
_WORKER: Final = "flyweight.server.runtime.process.worker"


def main(arguments: list[str]) -> None:
    """Do what the order, the first of `arguments`, says; after it may come `GIVE_WAY`."""
    if GIVE_WAY in arguments:
        # Importing takes longer than a small model does to load.
        do_aside(lambda: import_module(_WORKER))
    import_module(_WORKER).main(arguments[0])
