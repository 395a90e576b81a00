"""Run Triton's own server, as the package nvidia-pytriton carries it, over the suite's models.

    python -m venv venv && venv/bin/pip install nvidia-pytriton==0.7.0
    venv/bin/python hosts/triton_python.py FOLDER [--port 8001]

FOLDER is made, unless it is there; it gets the models for Triton's Python backend, the only one in that
package.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import pytriton

sys.path.insert(0, str(Path(__file__).parents[1]))

from oip.repository import write_python_repository


def prepare(folder: Path, package: Path) -> None:
    """Write the models, and the Python backend with the parts it looks for beside it."""
    write_python_repository(folder / "models")
    backend = folder / "backends" / "python"
    shutil.copytree(package / "tritonserver" / "backends", folder / "backends")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(
        package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub", backend
    )
    # Its interpreter is an isolated one that sees neither PYTHONPATH nor this environment, only that folder.
    for name in ("numpy", "numpy.libs"):
        (backend / name).symlink_to(package.parent / name)


def main() -> None:
    """Write the models and become tritonserver."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    package = Path(pytriton.__file__).resolve().parent
    if not folder.exists():
        prepare(folder, package)
    options = [
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        *("--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={arguments.port}"),
        *("--allow-http=false", "--allow-metrics=false"),
    ]
    environment = os.environ | {"LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs")}
    command = package / "tritonserver" / "bin" / "tritonserver"
    os.execve(command, [str(command), *options], environment)


if __name__ == "__main__":
    main()
