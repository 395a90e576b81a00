"""Write the Python code of every .proto file, registered in flyweight's own descriptor pool.

Run it with `make protos`. CI runs it and fails when the committed files differ.
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent / "protos"
# pip puts protoc's typing plugins beside the interpreter, which need not be on PATH.
SCRIPTS = Path(sys.executable).parent
TYPING_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
# protoc writes against protobuf's default pool; these two lines are all that ties the code to it.
DEFAULT_POOL = "_descriptor_pool.Default()"
POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
OUR_POOL_IMPORT = "from flyweight.protos.pool import POOL as _POOL\n"


def main() -> int:
    """Generate, then point the generated code at our pool; return protoc's exit code."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    services = [source for source in sources if "\nservice " in (ROOT / source).read_text()]
    status = run_protoc(["python_out", "mypy_out"], sources)
    status = status or run_protoc(["grpc_python_out", "mypy_grpc_out"], services)
    if status == 0:
        remove_orphans(sources)
        for source in sources:
            use_our_pool(ROOT / source.replace(".proto", "_pb2.py"))
    return status


def remove_orphans(sources: list[str]) -> None:
    """Remove generated files whose .proto is gone."""
    for path in ROOT.rglob("*_pb2*.py*"):
        source = re.sub(r"_pb2(_grpc)?\.pyi?$", ".proto", str(path.relative_to(ROOT)))
        if source not in sources and path.suffix in {".py", ".pyi"}:
            path.unlink()


def run_protoc(outputs: list[str], sources: list[str]) -> int:
    """Run protoc's plugins `outputs` over `sources`; return its exit code."""
    if not sources:
        return 0
    paths = [f"--proto_path={ROOT}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    plugins = [f"--plugin={name}={SCRIPTS / name}" for name in TYPING_PLUGINS]
    targets = [f"--{output}={ROOT}" for output in outputs]
    return int(protoc.main(["protoc", *paths, *plugins, *targets, *sources]))


def use_our_pool(path: Path) -> None:
    """Replace the default pool in one generated file.

    Raises:
        SystemExit: the file does not look as expected, so that a new protoc is noticed here, not at run time.
    """
    text = path.read_text()
    if text.count(DEFAULT_POOL) != 1 or text.count(POOL_IMPORT) != 1:
        sys.exit(f"{path}: the generated code no longer names the default pool once; adapt {__file__}.")
    text = text.replace(DEFAULT_POOL, "_POOL").replace(POOL_IMPORT, OUR_POOL_IMPORT)
    path.write_text(re.sub(r"[ \t]+\n", "\n", text))


if __name__ == "__main__":
    sys.exit(main())
