"""Write the models that the suite asks for: python write_repository.py FOLDER [--python].

The default is ONNX files in Triton's layout, which needs the package onnx. With --python they are written for
Triton's Python backend; `oip/functions.py` has the same models as functions for any other host of Python.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from oip.repository import write_onnx_repository, write_python_repository


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an empty or new folder")
    parser.add_argument("--python", action="store_true", help="for Triton's Python backend")
    arguments = parser.parse_args()
    (write_python_repository if arguments.python else write_onnx_repository)(arguments.folder)


if __name__ == "__main__":
    main()
