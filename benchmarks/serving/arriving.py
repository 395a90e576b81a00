"""A repository in which versions of one network come and go by rename, while a server serves it."""

import shutil
import time
from pathlib import Path
from typing import Final

from benchmarks.serving.networks import MODEL_FILE
from flyweight.client import Client, ClientError

_PATIENCE_SECONDS: Final = 60.0
# Asking is a request like others: seldom enough to be none of the load.
_LOOK_SECONDS: Final = 0.02


class Versions:
    """The version folders of one model; the latest is served. Not thread-safe."""

    def __init__(self, source: Path, repository: Path, model: str) -> None:
        """Publish version 1."""
        self._source = source
        self._repository = repository
        self._model = model
        self.latest = 0
        self._publish()

    def swap(self, client: Client) -> None:
        """Publish a version by rename, wait until it serves, and take the one before away."""
        before = self.latest
        self._publish()
        self._await(client, str(self.latest), is_ready=True)
        folder = self._repository / self._model / str(before)
        aside = self._repository / f".gone-{before}"
        folder.rename(aside)
        shutil.rmtree(aside)
        self._await(client, str(before), is_ready=False)

    def _publish(self) -> None:
        number = self.latest + 1
        aside = self._repository / f".coming-{number}"
        aside.mkdir(parents=True)
        # A link is a file of its own name at once; a copy would write as much as it reads.
        (aside / MODEL_FILE).hardlink_to(self._source)
        home = self._repository / self._model
        home.mkdir(exist_ok=True)
        aside.rename(home / str(number))
        self.latest = number

    def _await(self, client: Client, version: str, *, is_ready: bool) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                found = client.is_model_ready(self._model, version)
            except ClientError:
                found = False
            if found is is_ready:
                return
            time.sleep(_LOOK_SECONDS)
        raise SystemExit(f"{self._model}/{version} did not {'come' if is_ready else 'go'}")
