"""Uploaded files on disk: in a folder of our own, outside of the repository, and gone when nobody uses it."""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.overlay import Overlay, Upload
from flyweight.server.repository.scan import CONFIG_FILE, scan_repository
from flyweight.server.repository.snapshot import ModelSnapshot

_log = logging.getLogger(__name__)

_PREFIX: Final = "flyweight-uploads-"
# Locked for as long as its owner lives, so that whoever comes later can tell what a killed server left.
_LOCK_FILE: Final = ".owner"


class Uploads:
    """Owns a private folder (mode 0700), made at the first upload and removed by `close`. Thread-safe.

    Args:
        parent: where to make it; None takes the system's folder for temporary files.
        most_bytes: of all uploads together; one too many is refused.
    """

    def __init__(self, parent: Path | None, most_bytes: int) -> None:
        self._parent = parent
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._base: Path | None = None
        self._owner = -1
        self._count = 0
        # By a model's folder; removed with it.
        self._bytes: dict[Path, int] = {}

    @contextmanager
    def lay(self, model: str, upload: Upload) -> Iterator[Overlay]:
        """Write an upload's files, for a `with` block that has what is to be laid over the model put in use.

        Raises:
            LoadFailed: there is no room for it.
        """
        with self._lock:
            laid = self._write(model, upload) if upload.files else None
            yield Overlay(upload.config_text, laid)

    def sweep(self, in_use: Callable[[], Collection[Path] | None]) -> None:
        """Remove what is not in use: `in_use` returns models' folders, or None when it cannot tell."""
        with self._lock:
            used = in_use()
            gone = [] if used is None else [folder for folder in self._bytes if folder not in used]
            for folder in gone:
                shutil.rmtree(folder.parent, ignore_errors=True)
                del self._bytes[folder]

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to sweep."""
        return not self._bytes

    def close(self) -> None:
        """Remove everything; nobody reads it any more."""
        with self._lock:
            self._bytes.clear()
            if self._base is not None:
                shutil.rmtree(self._base, ignore_errors=True)
                os.close(self._owner)
                self._base = None

    def _write(self, model: str, upload: Upload) -> ModelSnapshot:
        size_bytes = sum(len(content) for content in upload.files.values())
        held_bytes = sum(self._bytes.values())
        if held_bytes + size_bytes > self._most_bytes:
            raise LoadFailed(
                f"The upload of {model!r} has {size_bytes:,} bytes, and {held_bytes:,} of the "
                f"{self._most_bytes:,} bytes for uploads are taken; unload a model that was uploaded, or "
                "start the server with more --upload-megabytes."
            )
        try:
            root = self._make_root()
            folder = root / model
            self._bytes[folder] = size_bytes
            _write_model(folder, upload)
            return scan_repository(root).models[model]
        except (OSError, RepositoryError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LoadFailed(
                f"The upload of {model!r} cannot be written ({reason}); look at --upload-folder."
            ) from error

    def _make_root(self) -> Path:
        if self._base is None:
            parent = self._parent or Path(tempfile.gettempdir())
            _remove_orphans(parent)
            base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._owner = os.open(base / _LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._owner, fcntl.LOCK_EX)
            self._base = base
        self._count += 1
        root = self._base / str(self._count)
        root.mkdir(mode=0o700)
        return root


def _write_model(folder: Path, upload: Upload) -> None:
    """Write a model's folder as it would lie in a repository."""
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(upload.config_text, encoding="utf-8")
    for path, content in upload.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _remove_orphans(parent: Path) -> None:
    """Remove what servers of this user left behind that were killed."""
    for base in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if base.is_symlink() or base.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(base / _LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _log.info("%s was left behind by a server that was killed; it is removed.", base)
                shutil.rmtree(base, ignore_errors=True)
            finally:
                os.close(descriptor)
