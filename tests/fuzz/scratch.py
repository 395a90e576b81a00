"""A folder for the files that a target reads, gone with the process."""

import atexit
import shutil
from pathlib import Path
from tempfile import mkdtemp


def scratch_folder() -> Path:
    """Return a new folder."""
    folder = Path(mkdtemp(prefix="flyweight-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
