"""Session settings of the operator, for every variant."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flyweight.server.errors import LoadFailed, StartError
from flyweight.server.runtime.seam import Runtime, RuntimeFactory, SessionSettings


class FactoryWithEntries:
    """Another factory, whose variants get the operator's settings in the place of the repository's.

    Raises:
        StartError: a setting is not one that can be made; told at the start, and not of each variant.
    """

    def __init__(self, factory: RuntimeFactory, entries: Mapping[str, str]) -> None:
        # Imported here: a server without such entries, and with worker processes, needs no onnxruntime.
        from flyweight.server.runtime.session_options import make_options

        try:
            make_options(SessionSettings(config_entries=entries), 1, "--session-entry")
        except LoadFailed as error:
            raise StartError(str(error)) from error
        self._factory = factory
        self._entries = entries

    def load(self, model_file: Path, settings: SessionSettings) -> Runtime:
        """Load with them; see `RuntimeFactory.load`."""
        merged = {**settings.config_entries, **self._entries}
        return self._factory.load(model_file, replace(settings, config_entries=merged))
