"""Loading models into worker processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from flyweight.server.errors import LoadFailed, StartError
from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.kills import KillWatch
from flyweight.server.runtime.model_file import inspect_model_file
from flyweight.server.runtime.priority import give_way
from flyweight.server.runtime.process.child import Task
from flyweight.server.runtime.process.post import GRACE_SECONDS, LOAD_SECONDS, Post
from flyweight.server.runtime.process.runtime import ProcessRuntime
from flyweight.server.runtime.process.supervisor import Supervisor
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.slots import RunSlots


class ProcessFactory:
    """Loads each model into a worker process of its own.

    Args:
        cores: how many threads a session has at most; None reads the cgroup.
        monotonic: the clock that restarts are timed by.
        turns: how many runs of a variant go on at once; 0 for one on each core.

    Raises:
        StartError: this system is not Linux, whose means of keeping processes it needs.
    """

    def __init__(
        self,
        cores: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        turns: int = 0,
    ) -> None:
        if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
            raise StartError("Worker processes need Linux 5.3 or later; start with --runtime inline.")
        self._cores = cores or available_cores()
        self._turns = turns or self._cores
        self._monotonic = monotonic
        self._kills = KillWatch()
        self.supervisor = Supervisor(monotonic)

    def load(self, model_file: Path, settings: SessionSettings) -> ProcessRuntime:
        """Start a worker that builds the session, and wait until it has.

        Raises:
            LoadFailed: the file is missing or not a model that can be served, or no worker could be started;
                nothing is left behind.
        """
        file = inspect_model_file(model_file)
        name = "/".join(model_file.parts[-3:-1])
        task = Task(file, settings, self._cores, self._turns, name)
        post = Post(task, self._monotonic, self._kills)
        self.supervisor.take(post)
        if settings.may_give_way:
            # Not before: the supervisor may just have been born. What this thread tries next gives way, too.
            give_way()
        try:
            report = post.first.result(LOAD_SECONDS + 2 * GRACE_SECONDS)
        except TimeoutError as error:
            self.supervisor.close(post)
            raise LoadFailed(
                f"{model_file} was not loaded within {LOAD_SECONDS:g} s, nor given up."
            ) from error
        return ProcessRuntime(post, report, self.supervisor, RunSlots(self._turns))
