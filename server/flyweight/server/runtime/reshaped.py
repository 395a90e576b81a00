"""A runtime whose callers see other shapes than its model has."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flyweight.server.repository.reshaping import Reshapes
from flyweight.server.runtime.seam import (
    Answer,
    Array,
    MemoryReport,
    Runtime,
    RuntimeState,
    Signature,
    Usage,
)


class ReshapedRuntime:
    """Gives arrays the model's shapes on the way in and the callers' on the way out; no element moves."""

    def __init__(self, runtime: Runtime, reshapes: Reshapes) -> None:
        self._runtime = runtime
        self._reshapes = reshapes

    @property
    def signature(self) -> Signature:
        """Return the session's own signature."""
        return self._runtime.signature

    @property
    def memory(self) -> MemoryReport:
        """Return what the model took when it was loaded."""
        return self._runtime.memory

    @property
    def is_elsewhere(self) -> bool:
        """Return whether what it stands before is."""
        return self._runtime.is_elsewhere

    @property
    def state(self) -> RuntimeState:
        """Return whether the model answers."""
        return self._runtime.state

    def usage(self) -> Usage:
        """Return what the model uses now."""
        return self._runtime.usage()

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Run the model once; see `Runtime.run`."""
        answer = self._runtime.run(
            {name: self._inward(name, array) for name, array in inputs.items()}, outputs, deadline_monotonic
        )
        return replace(
            answer, outputs={name: self._outward(name, array) for name, array in answer.outputs.items()}
        )

    def close(self) -> None:
        """Close the model's runtime."""
        self._runtime.close()

    def _inward(self, name: str, array: Array) -> Array:
        reshape = self._reshapes.inputs.get(name)
        return array if reshape is None else array.reshape(reshape.inward(array.shape))

    def _outward(self, name: str, array: Array) -> Array:
        reshape = self._reshapes.outputs.get(name)
        return array if reshape is None else array.reshape(reshape.outward(array.shape))
