"""The base install is enough for the client and its commands."""

import subprocess
import sys

import pytest

# What only the extras bring; a finder in front of all others says that it is not installed.
BLOCK = """
import sys
BLOCKED = {"onnxruntime", "onnx", "pydantic", "rich", "torch", "prometheus_client", "grpc_health",
           "grpc_reflection", "matplotlib", "jinja2", "sklearn", "scipy", "tritonclient"}
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_client_works_without_any_extra() -> None:
    done = run("""
import numpy
from flyweight.client import *
from flyweight.client.testing import serve_fake
with serve_fake({"echo": dict}) as server, Client(server.address) as client:
    print(client.predict("echo", {"x": numpy.ones(2)}).output.tolist())
""")
    assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n", "")


@pytest.mark.parametrize("command", ["predict", "models"])
def test_its_commands_work_without_any_extra(command: str) -> None:
    done = run("from flyweight.client.cli.main import main; sys.exit(main())", command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: flyweight" in done.stdout


@pytest.mark.parametrize(("command", "extra"), [("serve", "server"), ("compress", "compressor")])
def test_a_command_of_a_missing_extra_explains_itself_or_says_which_to_install(
    command: str, extra: str
) -> None:
    done = run("from flyweight.client.cli.main import main; sys.exit(main())", command, "--help")
    assert "Traceback" not in done.stderr
    assert "Usage: flyweight" in done.stdout or f"pip install 'flyweight[{extra}]'" in done.stderr


def test_help_imports_neither_numpy_nor_grpc() -> None:
    done = run("""
from flyweight.client.cli.main import main
code = main(["--help"])
print(sorted({"numpy", "grpc", "google.protobuf"} & sys.modules.keys()), code)
""")
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
