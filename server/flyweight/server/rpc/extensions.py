"""Triton's extensions of the protocol that need something of their own, put together from the settings."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from flyweight.protos.tensors import TensorLimits
from flyweight.server.errors import StartError
from flyweight.server.rpc.call import Handler
from flyweight.server.rpc.log_settings import LogControl
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.reading import DEFAULT_LIMITS
from flyweight.server.rpc.regions import Regions
from flyweight.server.rpc.shared_memory import SystemSharedMemory
from flyweight.server.rpc.trace_file import TraceFiles
from flyweight.server.rpc.trace_log import TraceAndLog
from flyweight.server.rpc.tracer import Tracer
from flyweight.server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the handlers share. Owns the regions' files and the trace's thread, until `close`.

    Attributes:
        regions: of shared memory; None when it is switched off.
        tracer: to be told of every inference.
        log: what is logged.
        limits: on the tensors of a request.
    """

    regions: Regions | None = None
    tracer: Tracer = field(default_factory=lambda: Tracer(None))
    log: LogControl = field(default_factory=LogControl)
    limits: TensorLimits = DEFAULT_LIMITS

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> "Extensions":
        """Set up what the operator asked for.

        Raises:
            StartError: the folder for traces cannot be written to.
        """
        return cls(
            regions=Regions() if settings.shared_memory else None,
            tracer=Tracer(_trace_files(settings.trace_folder)),
            limits=TensorLimits(
                tensor_bytes=settings.max_tensor_bytes(),
                string_bytes=settings.limits.max_string_bytes,
                strings=DEFAULT_LIMITS.strings,
                tensors=settings.limits.max_tensors,
            ),
        )

    def names(self) -> tuple[str, ...]:
        """Return Triton's names of the extensions that are there because the operator set them up."""
        return ("system_shared_memory",) if self.regions is not None else ()

    def handlers(self, models: Models, *, allow_control: bool) -> dict[str, Handler]:
        """Return the handlers of these extensions by RPC name."""
        trace_and_log = TraceAndLog(models, self.tracer, self.log, allow_control=allow_control)
        return {
            **SystemSharedMemory(self.regions).handlers(),
            "TraceSetting": trace_and_log.trace_setting,
            "LogSettings": trace_and_log.log_settings,
        }

    def close(self) -> None:
        """Write what is to be written, close what is open, and log as usual again; after the last request."""
        self.tracer.close()
        self.log.close()
        if self.regions is not None:
            self.regions.close()


def _trace_files(folder: Path | None) -> TraceFiles | None:
    if folder is None:
        return None
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(
            f"{folder}, given with --trace-folder, is not a folder that can be written to; make it, or "
            "correct the path."
        )
    return TraceFiles(folder)
