"""From the protocol's messages to what a client returns."""

from collections.abc import Iterable
from types import MappingProxyType

from flyweight.client.results import (
    Duration,
    ModelInfo,
    Prediction,
    ServerInfo,
    TensorInfo,
    VariantState,
    VariantStatistics,
    VariantTraffic,
)
from flyweight.protos.control.v1 import control_pb2 as control
from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.tensors import decode_tensors, parameters_to_dict

# The parameters by which flyweight's server says who answered and why.
VARIANT = "flyweight_variant"
ROLE = "flyweight_role"
REASON = "flyweight_reason"

_ROLES = {control.ROLE_BASELINE: "baseline", control.ROLE_CANDIDATE: "candidate"}

_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def prediction(response: pb.ModelInferResponse) -> Prediction:
    """Read the answer of ModelInfer.

    Raises:
        TensorError: an output's bytes do not fit its datatype and shape.
    """
    outputs = decode_tensors(response.outputs, response.raw_output_contents)
    parameters = parameters_to_dict(response.parameters)
    return Prediction(
        outputs=MappingProxyType(outputs),
        model=response.model_name,
        variant=str(parameters.pop(VARIANT, response.model_version)),
        role=str(parameters.pop(ROLE, "")),
        reason=str(parameters.pop(REASON, "")),
        request_id=response.id,
        parameters=MappingProxyType(parameters),
    )


def server_info(response: pb.ServerMetadataResponse) -> ServerInfo:
    """Read the answer of ServerMetadata."""
    return ServerInfo(response.name, response.version, tuple(response.extensions))


def model_info(response: pb.ModelMetadataResponse) -> ModelInfo:
    """Read the answer of ModelMetadata."""
    return ModelInfo(
        name=response.name,
        variants=tuple(response.versions),
        platform=response.platform,
        inputs=_tensors(response.inputs),
        outputs=_tensors(response.outputs),
    )


def _tensors(tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)


def variant_states(response: pb.RepositoryIndexResponse) -> tuple[VariantState, ...]:
    """Read the answer of RepositoryIndex."""
    return tuple(
        VariantState(entry.name, entry.version, entry.state, entry.reason) for entry in response.models
    )


def variant_traffic(response: control.ListVariantsResponse) -> tuple[VariantTraffic, ...]:
    """Read the answer of the control service's ListVariants."""
    return tuple(
        VariantTraffic(
            line.model, line.name, _ROLES.get(line.role, ""), line.share_percent, line.memory_bytes
        )
        for line in response.variants
    )


def variant_statistics(response: pb.ModelStatisticsResponse) -> tuple[VariantStatistics, ...]:
    """Read the answer of ModelStatistics."""
    return tuple(_statistics(entry) for entry in response.model_stats)


def _statistics(entry: pb.ModelStatistics) -> VariantStatistics:
    stages = {stage: getattr(entry.inference_stats, stage) for stage in _STAGES}
    return VariantStatistics(
        model=entry.name,
        variant=entry.version,
        inferences=entry.inference_count,
        executions=entry.execution_count,
        stages=MappingProxyType({name: Duration(s.count, s.ns / 1e9) for name, s in stages.items()}),
    )
