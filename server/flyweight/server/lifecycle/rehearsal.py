"""Running a variant before anybody waits for it: golden samples, warm-up samples, and rows side by side."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.server.errors import InvalidRequest, LoadFailed, RunFailed
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.repository.warmup import WarmupSample, warmup_samples
from flyweight.server.runtime.golden import check_golden, warm_up
from flyweight.server.runtime.independence import measure_independence
from flyweight.server.runtime.seam import Array, Runtime, Signature
from flyweight.server.sequences.spec import SequenceSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What is to be rehearsed.

    `bare` is the session's runtime, which the golden samples are of; `runtime` and `signature` are what
    requests meet. `sequences` says which inputs callers do not send.
    """

    source: VariantSource
    manifest: VariantManifest | None
    bare: Runtime
    runtime: Runtime
    signature: Signature
    sequences: SequenceSpec | None


def rehearse(variant: Rehearsed, config: ModelConfig, serving: ServingPolicy) -> ServingPolicy:
    """Run the variant, and return its policy with what was seen of its rows.

    Args:
        variant: what is run.
        config: its whole configuration.
        serving: what the configuration asks for.

    Raises:
        LoadFailed: it does not repeat its golden outputs, or does not answer a sample of config.pbtxt.
    """
    hidden = {} if variant.sequences is None else variant.sequences.opening_inputs()
    golden = None
    if variant.manifest is not None and variant.manifest.golden.file:
        golden = check_golden(variant.bare, variant.source.folder, variant.manifest.golden)
    has_samples = False
    for sample in warmup_samples(config, variant.source.model, variant.source.folder.parent):
        _run_sample(variant, sample, hidden)
        has_samples = True
    if golden is None and not has_samples:
        failed = warm_up(variant.runtime, variant.signature, hidden)
        if failed:
            _log.info("%s was not warmed up with zeros: %s", _name(variant), failed)
    return _with_verdict(variant, golden, serving)


def _name(variant: Rehearsed) -> str:
    return f"{variant.source.model}/{variant.source.variant}"


def _run_sample(variant: Rehearsed, sample: WarmupSample, hidden: Mapping[str, Array]) -> None:
    # A sample may give the inputs that the server fills; it writes them without the batch axis.
    given = {
        name: array.reshape(hidden[name].shape) if _fits(array, hidden.get(name)) else array
        for name, array in sample.inputs.items()
    }
    visible = {name: array for name, array in given.items() if name not in hidden}
    try:
        variant.signature.check(visible)
        for _ in range(sample.count):
            variant.runtime.run({**hidden, **given})
    except (InvalidRequest, RunFailed, TensorError) as error:
        raise LoadFailed(
            f"The warm-up sample {sample.name!r} of {variant.source.model} is not answered: {error}"
        ) from error


def _fits(array: Array, hidden: Array | None) -> bool:
    return hidden is not None and array.size == hidden.size


def _with_verdict(
    variant: Rehearsed, golden: Mapping[str, Array] | None, serving: ServingPolicy
) -> ServingPolicy:
    """Return the policy with merging decided: MEASURED stays where rows were seen not to mind each other."""
    if serving.merging is Merging.NEVER and serving.max_rows > 1:
        _log.info(
            "Requests to %s are run one by one, because its config.pbtxt lists its tensors and does not ask "
            "for dynamic_batching.",
            _name(variant),
        )
    if serving.merging is not Merging.MEASURED:
        return serving
    verdict = measure_independence(variant.runtime, variant.signature, golden)
    if verdict.independent:
        _log.info("Requests to %s share runs: %s.", _name(variant), verdict.reason)
        return serving
    _log.info("Requests to %s are run one by one, because %s.", _name(variant), verdict.reason)
    return replace(serving, merging=Merging.NEVER)
