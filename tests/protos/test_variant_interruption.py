"""A writer that is killed, or hits a limit, at any moment leaves all of a variant or nothing of it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant, read_manifest, verify_digests

# Publishes a variant with the content given, and stops for ever (until it is killed) where it is told to.
WRITER = """
import os, signal, sys
from pathlib import Path
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant, publishing

repository, where = Path(sys.argv[1]), sys.argv[2]

def stop_here(*arguments, **options):
    print("stopped", flush=True)
    signal.pause()

def fill(folder):
    (folder / "model.onnx").write_bytes(b"new")
    if where == "fill":
        stop_here()

if where in {"write_manifest", "_flush", "_move_into_place"}:
    setattr(publishing, where, stop_here)
elif where == "between":
    publishing.exchange = lambda first, second: False
    rename = Path.rename
    Path.rename = lambda path, target: stop_here() if path.suffix == ".publishing" else rename(path, target)
elif where == "clean-up":
    publishing.shutil.rmtree = stop_here
publish_variant(repository, VariantManifest(model="digits", variant="int8"), fill)
"""

BEFORE = ["fill", "write_manifest", "_flush", "_move_into_place"]


def kill_a_writer(repository: Path, where: str) -> None:
    """Run a writer up to a place in the work, then kill it as the kernel would."""
    command = [sys.executable, "-c", WRITER, str(repository), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "stopped\n"
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(30) == -signal.SIGKILL


def visible(repository: Path) -> dict[str, bytes]:
    """Return the model of every variant a reader sees, after checking that each is whole."""
    models = {}
    for folder in (repository / "digits").iterdir():
        if not folder.name.startswith("."):
            manifest = read_manifest(folder)
            assert manifest is not None
            verify_digests(folder, manifest)
            models[folder.name] = (folder / "model.onnx").read_bytes()
    return models


def publish(repository: Path, variant: str, content: bytes) -> None:
    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(content)

    publish_variant(repository, VariantManifest(model="digits", variant=variant), fill)


@pytest.mark.parametrize("where", BEFORE)
def test_a_new_variant_is_not_there_before_it_is_whole(tmp_path: Path, where: str) -> None:
    kill_a_writer(tmp_path, where)
    assert visible(tmp_path) == {}


@pytest.mark.parametrize("where", ["_move_into_place", "clean-up"])
def test_a_replaced_variant_is_the_old_or_the_new_one(tmp_path: Path, where: str) -> None:
    publish(tmp_path, "int8", b"old")
    kill_a_writer(tmp_path, where)
    assert visible(tmp_path) == {"int8": b"new" if where == "clean-up" else b"old"}


def test_a_variant_set_aside_by_a_killed_writer_comes_back_with_the_next_publishing(tmp_path: Path) -> None:
    publish(tmp_path, "int8", b"old")
    kill_a_writer(tmp_path, "between")
    publish(tmp_path, "fp16", b"other")
    assert visible(tmp_path) == {"int8": b"old", "fp16": b"other"}


def test_a_file_size_limit_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "int8", b"old")
    limited = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from flyweight.protos.errors import RepositoryError\n"
        "from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest\n"
        "from flyweight.protos.variant import publish_variant\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    publish_variant(Path(sys.argv[1]), VariantManifest(model='digits', variant='int8'),\n"
        "                    lambda folder: (folder / 'model.onnx').write_bytes(bytes(8192)))\n"
        "except RepositoryError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", limited, str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "int8 cannot be written (File too large" in outcome.stdout
    assert visible(tmp_path) == {"int8": b"old"}
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["int8"]
