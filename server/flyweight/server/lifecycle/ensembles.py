"""Bringing up an ensemble: its steps are leased from the routing table, whatever it says at the time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed, NotReady, UnknownModel, UnknownVariant
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, lease_from
from flyweight.server.repository.ensembles import check_steps, ensemble_graph
from flyweight.server.repository.serving import Merging
from flyweight.server.runtime.ensemble import EnsembleRuntime, StepListener

# An ensemble of ensembles of ensembles is plenty; each level is a few frames on the stack of a run.
_DEEPEST: Final = 8


class Ensembles:
    """Makes runtimes of ensembles. Thread-safe.

    `table` returns the current routing table; `listener` is told of every step that any of them runs.
    """

    def __init__(self, table: Callable[[], RoutingTable], listener: StepListener) -> None:
        self._table = table
        self._listener = listener

    def load(self, config: ModelConfig, model: str) -> tuple[EnsembleRuntime, bool]:
        """Return an ensemble whose steps are all served now, and whether all of their runs may be shared.

        Raises:
            LoadFailed: a step is not served yet, or does not fit; or the ensemble runs itself by a detour.
        """
        what = f"The ensemble {model!r}"
        graph = ensemble_graph(config, model)
        steps = [self._find(step.model, step.version, what) for step in graph.steps]
        for loaded in steps:
            if loaded.sequences is not None:
                raise LoadFailed(
                    f"{what} has the step {loaded.model!r}, which keeps state; call it by itself."
                )
            self._require_shallow(loaded, model, what, 1)
        signatures = [loaded.signature for loaded in steps]
        check_steps(graph, signatures, config.max_batch_size, what)
        is_merging = all(loaded.serving.merging is not Merging.NEVER for loaded in steps)
        return EnsembleRuntime(model, graph, self._lease, self._listener), is_merging

    def _find(self, model: str, version: str, what: str) -> LoadedVariant:
        try:
            return self._table().model(model).variant(version)
        except (UnknownModel, UnknownVariant, NotReady) as error:
            raise LoadFailed(
                f"{what} waits for its step {model!r}: {str(error).rstrip('.')}; it is loaded "
                "when that is there."
            ) from error

    def _require_shallow(self, loaded: LoadedVariant, model: str, what: str, depth: int) -> None:
        for step in loaded.config.ensemble_scheduling.step:
            if step.model_name == model:
                raise LoadFailed(f"{what} runs itself by its step {loaded.model!r}; break the circle.")
            if depth >= _DEEPEST:
                raise LoadFailed(f"{what} is more than {_DEEPEST} ensembles deep; join some of them.")
            version = str(step.model_version) if step.model_version > 0 else ""
            self._require_shallow(self._find(step.model_name, version, what), model, what, depth + 1)

    @contextmanager
    def _lease(self, model: str, version: str) -> Iterator[LoadedVariant]:
        def pick(table: RoutingTable) -> tuple[LoadedVariant, None]:
            return table.model(model).variant(version), None

        with lease_from(self._table, pick) as held:
            yield held.variant
