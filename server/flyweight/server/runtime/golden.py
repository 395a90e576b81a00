"""The check of golden samples, and the warm-up of a session that has none."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flyweight.protos.manifest.v1.manifest_pb2 import Golden
from flyweight.protos.tensors import DATATYPES
from flyweight.protos.tensors.bfloat16 import as_sent
from flyweight.protos.variant import read_golden
from flyweight.protos.variant.golden import largest_relative_error
from flyweight.protos.variant.names import is_inside_folder
from flyweight.server.errors import InvalidRequest, LoadFailed, RunFailed
from flyweight.server.runtime.seam import Array, Runtime, Signature, TensorSpec


def check_golden(runtime: Runtime, folder: Path, golden: Golden) -> Mapping[str, Array]:
    """Run the golden inputs and compare the outputs; this is also the session's warm-up.

    Two outputs agree when max|actual - expected| <= relative_tolerance * max|expected|.

    Returns:
        The inputs, which the model is now known to take.

    Raises:
        ManifestError: the samples cannot be read.
        LoadFailed: the model does not take the samples, or answers something else than when it was published.
    """
    if not is_inside_folder(golden.file):
        raise LoadFailed(
            f"{folder}: golden samples must lie in the variant's folder, not at {golden.file!r}."
        )
    samples = read_golden(folder / golden.file)
    try:
        runtime.signature.check(samples.inputs, samples.outputs)
        answer = runtime.run(samples.inputs, list(samples.outputs))
    except (InvalidRequest, RunFailed) as error:
        raise LoadFailed(f"{folder / golden.file} cannot be run by the model beside it: {error}") from error
    for name, expected in samples.outputs.items():
        difference = largest_relative_error(expected, answer.outputs[name])
        if not difference <= golden.relative_tolerance:
            raise LoadFailed(
                f"{folder}: the output {name!r} differs from the golden sample by {difference:.3g} of its "
                f"magnitude where {golden.relative_tolerance:.3g} is allowed; this processor or runtime "
                "computes it differently, so evaluate and publish the variant again here."
            )
    return samples.inputs


def warm_up(runtime: Runtime, signature: Signature, hidden: Mapping[str, Array] | None = None) -> str:
    """Run zeros of the smallest shape once; return why that failed, or nothing.

    Zeros are a guess: a model may rightly refuse them (an index of 0 into nothing, lengths that belong
    together), so this decides nothing. `hidden` are inputs that callers do not send.
    """
    try:
        zeros = {spec.name: _zeros(spec) for spec in signature.inputs if not spec.optional}
        runtime.run({**zeros, **(hidden or {})})
    except (InvalidRequest, RunFailed) as error:
        return str(error)
    return ""


def _zeros(spec: TensorSpec) -> Array:
    shape = [max(length, 1) if length < 0 else length for length in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return as_sent(np.zeros(shape, dtype=DATATYPES[spec.datatype]), spec.datatype)
