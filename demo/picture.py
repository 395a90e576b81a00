"""Photograph a report with a headless Chromium, for the README.

python -m demo.picture build/demo/report.html docs/images/report.png
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

from demo.errors import DemoError

# The head of the report with its first picture; the rest is for those who run the demo.
_WIDTH, _HEIGHT = 1180, 1110
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--force-device-scale-factor=1.5",
)
_SECONDS: Final = 120


def photograph(report: Path, picture: Path) -> None:
    """Write a PNG of the report's first screen.

    Raises:
        DemoError: there is no Chromium, or it took no picture.
    """
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise DemoError("No Chromium was found; install one (Debian: apt install chromium).")
    with TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = f"--window-size={_WIDTH},{_HEIGHT}"
        command = [browser, *_FLAGS, size, f"--screenshot={shot}", report.resolve().as_uri()]
        subprocess.run(command, check=False, capture_output=True, timeout=_SECONDS)  # noqa: S603  # found above
        if not shot.is_file():
            raise DemoError(f"{browser} took no picture of {report}; open it by hand to see why.")
        picture.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(shot) as image:
            image.convert("RGB").save(picture, optimize=True)


if __name__ == "__main__":
    try:
        photograph(Path(sys.argv[1]), Path(sys.argv[2]))
    except DemoError as error:
        sys.exit(f"demo.picture: error: {error}")
