"""The process that is measured: what memory it holds before and after it loads one model and runs it once.

`python -m flyweight.compressor.evaluate.memory_probe` reads one JSON line from standard input: empty and
model (ONNX files), feed (an .npz file), threads, config. It prints one JSON line with the growth of its
proportional and private set sizes in bytes. The empty model is run first, so that onnxruntime's own memory,
and its code that other processes share, are there before; nothing else runs in between.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.sessions import Session, SessionSettings

Array = NDArray[Any]

_ROLLUP: Final = Path("/proc/self/smaps_rollup")


def main() -> int:
    """Run the empty model, read, run the model, read while its session is alive, print the difference."""
    order = json.loads(sys.stdin.readline())
    settings = SessionSettings(order["threads"], order["config"])
    with np.load(order["feed"], allow_pickle=False) as file:
        feed = {name: _for_session(file[name]) for name in file.files}
    empty = Session(Path(order["empty"]), settings)
    empty.run({"x": np.zeros(1, dtype=np.float32)})
    before = _held()
    session = Session(Path(order["model"]), settings)
    session.run(feed)
    after = _held()
    sys.stdout.write(json.dumps({kind: after[kind] - before[kind] for kind in after}) + "\n")
    return 0


def _held() -> dict[str, int]:
    """Read what is held once the allocator has given back what it keeps in reserve.

    Loading leaves freed memory behind, as much as the file's form demands: without this, one 67 MB network
    counted 84 to 118 MB, and its fp16 file sometimes more and sometimes less than the original. With it both
    hold their weights.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return read_rollup(_ROLLUP.read_text(encoding="ascii"))


def private_bytes() -> int:
    """Return the private bytes of this process; 0 where the kernel does not tell."""
    try:
        return read_rollup(_ROLLUP.read_text(encoding="ascii"))["uss"]
    except OSError:
        return 0


def _for_session(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind in "US" else array


def read_rollup(text: str) -> dict[str, int]:
    """Return proportional (pss) and private (uss) bytes from the text of smaps_rollup, which is in KiB."""
    fields = {}
    for line in text.splitlines()[1:]:
        key, _, value = line.partition(":")
        fields[key] = int(value.split()[0]) * 1024
    return {"pss": fields["Pss"], "uss": fields["Private_Clean"] + fields["Private_Dirty"]}


if __name__ == "__main__":
    sys.exit(main())
