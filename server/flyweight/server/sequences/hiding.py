"""The signature that callers of a model with state see: without what the server fills and keeps. Pure."""

from dataclasses import replace

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.runtime.signature import Signature
from flyweight.server.sequences.spec import SequenceSpec


def hide(session: Signature, spec: SequenceSpec | None, config: ModelConfig | None) -> Signature:
    """Return the session's signature without controls and states.

    A state output that the configuration lists among its outputs is shown, as in Triton.
    """
    if spec is None or config is None:
        return session
    listed = {tensor.name for tensor in config.output}
    states = set(spec.state_outputs) - listed
    return replace(
        session,
        inputs=tuple(each for each in session.inputs if each.name not in spec.hidden_inputs),
        outputs=tuple(each for each in session.outputs if each.name not in states),
    )
