#!/usr/bin/env bash
# Build the wheel and prove it in clean environments: the base install is the client alone, the server needs
# neither torch nor onnx, and the test suite passes against the installed wheel instead of the source tree.
# Usage: tools/test_wheel.sh PYTHON   (a Python that has pip; run from the project's root)
set -euo pipefail

python=${1:?usage: tools/test_wheel.sh PYTHON}
out=$PWD/build/wheel
rm -rf "$out"
mkdir -p "$out"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$out" .
wheel=$(ls "$out"/flyweight-*.whl)
echo "built $(basename "$wheel")"

new_environment() { # NAME REQUIREMENT...
  "$python" -m venv "$out/$1"
  "$out/$1/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
  "$out/$1/bin/python" -m pip install --quiet -c constraints.txt "${@:2}"
}

# 1. The base install: a client in a small environment, and a command that says what it lacks.
new_environment base "$wheel"
"$out/base/bin/flyweight" --version
"$out/base/bin/flyweight" predict --help >/dev/null
if message=$("$out/base/bin/flyweight" serve . 2>&1); then
  echo "flyweight serve ran without the server extra" >&2
  exit 1
fi
grep -q "flyweight\[server\]" <<<"$message" || { echo "unhelpful: $message" >&2; exit 1; }
"$out/base/bin/python" - <<'PY'
import importlib.util as util
import flyweight.client
heavy = [name for name in ("onnxruntime", "torch", "onnx", "pydantic") if util.find_spec(name)]
assert not heavy, f"the base install brought {heavy}"
PY

# 2. The server alone: nothing of the compressor's comes along, and it starts without onnxruntime where others
# hold the sessions.
new_environment server "${wheel}[server]"
"$out/server/bin/flyweight" serve --help >/dev/null
"$out/server/bin/flyweight" check --help >/dev/null
"$out/server/bin/flyweight" token --name wheel >/dev/null 2>&1
"$out/server/bin/python" - <<'PY'
import importlib.util as util
import sys
import flyweight.server.app
import flyweight.server.cli
theirs = [name for name in ("torch", "onnx", "scipy", "sympy", "matplotlib", "rich") if util.find_spec(name)]
assert not theirs, f"the server's install brought {theirs}"
assert "onnxruntime" not in sys.modules, "the server imports onnxruntime before it needs it"
PY

# 3. Server and ONNX-only compressor from the wheel, without torch: the suite, less what needs torch.
new_environment suite "${wheel}[server,compressor]"
"$out/suite/bin/python" -m pip install --quiet -c constraints.txt --group test
"$out/suite/bin/python" -c '
import flyweight.server, importlib.util as util, pathlib
assert util.find_spec("torch") is None, "torch came along"
assert "site-packages" in flyweight.server.__file__, flyweight.server.__file__'
"$out/suite/bin/pytest" -m "not torch and not source" "${@:2}"
