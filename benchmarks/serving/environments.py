"""Other servers' environments: one for each, made once, with what is pinned here."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INSTALL_SECONDS: Final = 900
_ONNXRUNTIME: Final = "onnxruntime==1.31.1"
# Gigabytes that no server of an ONNX model needs.
_REFUSED: Final = ("torch",)


class NotInstalledError(Exception):
    """A peer has no environment; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server.

    Attributes:
        name: on the command line, and of its runner in peers/.
        title: in tables.
        requirements: of its environment.
        path: of an HTTP server's URL; None for one that speaks the Open Inference Protocol over gRPC.
        form: how an HTTP server takes the tensor.
        listens_everywhere: it cannot be kept to 127.0.0.1.
        is_restless: it works also when nobody asks, so it runs only when it is its turn.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    path: str | None = None
    form: str = "bytes"
    listens_everywhere: bool = False
    is_restless: bool = False

    @property
    def runner(self) -> Path:
        """Return the script that serves a model with it."""
        return Path(__file__).parent / "peers" / f"{self.name}_runner.py"


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("mlserver", "MLServer 1.7.1", ("mlserver==1.7.1", _ONNXRUNTIME)),
        Peer("kserve", "KServe 0.21.0", ("kserve==0.21.0", _ONNXRUNTIME)),
        Peer("pytriton", "Triton 2.51, Python backend", ("nvidia-pytriton==0.7.0", _ONNXRUNTIME)),
        Peer("litserve", "LitServe 0.2.19, HTTP", ("litserve==0.2.19", _ONNXRUNTIME), "/predict", "base64"),
        Peer("bentoml", "BentoML 1.4, HTTP", ("bentoml>=1.4,<1.5", "fastapi", _ONNXRUNTIME), "/raw/predict"),
        Peer(
            "ray",
            "Ray Serve 2, HTTP",
            ("ray[serve]>=2.50,<3", _ONNXRUNTIME),
            "/",
            listens_everywhere=True,
            is_restless=True,
        ),
    )
}


def find(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a peer's environment.

    Raises:
        NotInstalledError: there is none.
    """
    python = folder / peer.name / "bin" / "python"
    if not (folder / peer.name / _STAMP).exists():
        raise NotInstalledError("not installed")
    if peer.listens_everywhere and _has_network():
        raise NotInstalledError("listens on every interface: run with --isolated")
    return python


def install(peer: Peer, folder: Path, pythons: Mapping[str, str]) -> None:
    """Make a peer's environment, if it is not there yet.

    Args:
        peer: whose.
        folder: where environments are.
        pythons: interpreters to make them with, by peer; this one for the others.

    Raises:
        NotInstalledError: pip failed, or would have brought what is refused.
    """
    home = folder / peer.name
    if (home / _STAMP).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _run([pythons.get(peer.name, sys.executable), "-m", "venv", str(home)])
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    report = json.loads(_run([*pip, "--dry-run", "--report", "-", *peer.requirements]))
    names = {item["metadata"]["name"].lower() for item in report["install"]}
    for name in _REFUSED:
        if name in names:
            raise NotInstalledError(f"would install {name}")
    _run([*pip, *peer.requirements])
    (home / _STAMP).touch()


# Written last: an environment without it was interrupted.
_STAMP: Final = ".complete"


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise NotInstalledError(f"cannot be installed: {lines[-1] if lines else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"cannot be installed: {error}") from error
    return done.stdout


def _has_network() -> bool:
    """Tell whether this process sees an interface other than the loopback."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:]
    return any(line.split(":")[0].strip() != "lo" for line in lines)
