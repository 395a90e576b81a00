"""Models as they were uploaded: what is served in the place of what the repository holds, for the time being.

An upload is on trial until everything of it is loaded. One that fails changes nothing: what stood there
before stands there again, in the same step, so that nothing is unloaded for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from flyweight.server.repository.snapshot import ModelSnapshot, Snapshot


@dataclass(frozen=True, slots=True)
class Upload:
    """What came with a load: the text form of a configuration, and files by path, "1/model.onnx".

    Without files, the configuration is for those in the repository.
    """

    config_text: str
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Overlay:
    """What stands over a model of the repository: a configuration, or a whole model's folder of its own."""

    config_text: str
    laid: ModelSnapshot | None = None

    def over(self, found: ModelSnapshot | None) -> ModelSnapshot | None:
        """Return the model as it is to be served; None when there is nothing to lay it over."""
        if self.laid is not None:
            return self.laid
        return None if found is None else replace(found, config_text=self.config_text)


class Overlays:
    """Which overlay stands over which model. The board's, which calls it under its own lock."""

    def __init__(self) -> None:
        self._current: dict[str, Overlay] = {}
        # What stood over the models whose overlay is on trial.
        self._before: dict[str, Overlay | None] = {}
        self._errors: dict[str, str] = {}

    def put(self, model: str, overlay: Overlay | None) -> None:
        """Lay an overlay over a model, on trial; None takes away what is there."""
        before = self._before.pop(model, self._current.get(model))
        self._errors.pop(model, None)
        if overlay is None:
            self._current.pop(model, None)
        else:
            self._before[model] = before
            self._current[model] = overlay

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """Return the repository as it is to be served."""
        if not self._current:
            return snapshot
        laid = {model: overlay.over(snapshot.models.get(model)) for model, overlay in self._current.items()}
        found = {model: over for model, over in laid.items() if over is not None}
        return replace(snapshot, models=MappingProxyType(dict(sorted({**snapshot.models, **found}.items()))))

    def replaces(self, model: str) -> bool:
        """Tell whether a model is served from files that are not in the repository."""
        overlay = self._current.get(model)
        return overlay is not None and overlay.laid is not None

    def fail(self, model: str, reason: str) -> bool:
        """Take back an overlay that is on trial, because of `reason`; tell whether there was one."""
        if model not in self._before:
            return False
        before = self._before.pop(model)
        self._errors[model] = reason
        if before is None:
            self._current.pop(model)
        else:
            self._current[model] = before
        return True

    def succeed(self, model: str) -> None:
        """End the trial of a model's overlay: everything of it is loaded."""
        self._before.pop(model, None)

    def on_trial(self, model: str) -> bool:
        """Tell whether a model's overlay is on trial."""
        return model in self._before

    def error(self, model: str) -> str:
        """Return why the last overlay of a model was taken back; empty when it was not."""
        return self._errors.get(model, "")

    def folders(self) -> set[Path]:
        """Return the folders of every overlay that stands, or may stand again."""
        overlays = [*self._current.values(), *self._before.values()]
        return {
            overlay.laid.folder for overlay in overlays if overlay is not None and overlay.laid is not None
        }
