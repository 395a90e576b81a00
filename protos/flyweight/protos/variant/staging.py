"""The hidden folders in which variants are written, and what an interrupted writer leaves of them."""

import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WRITING: Final = ".publishing"
_ASIDE: Final = ".replaced"

# No writer is busy this long without touching a file; anything older was left by one that was killed.
_STALE_SECONDS: Final = 24 * 3600


def staging_folder(target: Path) -> Path:
    """Return a new hidden name beside `target` to write it under."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{_WRITING}")


def aside_folder(staging: Path) -> Path:
    """Return the hidden name under which what a staged folder replaces waits."""
    return staging.with_suffix(_ASIDE)


def clean_up_after_others(model_folder: Path, now: float | None = None) -> None:
    """Bring back variants that an interrupted writer set aside, and remove what it left half-written.

    Args:
        model_folder: where variants are published.
        now: seconds since the epoch; the clock's when not given.
    """
    oldest = (time.time() if now is None else now) - _STALE_SECONDS
    for aside in _folders(model_folder, _ASIDE):
        variant = model_folder / aside.name[1:].rsplit(".", 2)[0]
        if not variant.exists():
            _try_to_rename(aside, variant)
    for suffix in (_WRITING, _ASIDE):
        for folder in _folders(model_folder, suffix):
            if _last_touched(folder) < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _folders(parent: Path, suffix: str) -> Iterator[Path]:
    return (path for path in list(parent.glob(f".*{suffix}")) if path.is_dir() and not path.is_symlink())


def _try_to_rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except OSError:
        # Another writer was faster; either way the variant is there.
        return


def _last_touched(folder: Path) -> float:
    """Return when the folder or anything in it last changed; now, where it is changing while we look."""
    try:
        return max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])
    except OSError:
        return time.time()
