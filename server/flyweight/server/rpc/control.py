"""flyweight.control.v1: what is served, who answers, and changing that in the repository."""

from flyweight.protos.control.v1.control_pb2 import (
    GetTrafficRequest,
    GetTrafficResponse,
    ListVariantsRequest,
    ListVariantsResponse,
    PromoteRequest,
    PromoteResponse,
    Role,
    RollbackRequest,
    RollbackResponse,
    SetTrafficRequest,
    SetTrafficResponse,
    Variant,
    VariantState,
)
from flyweight.server.errors import InvalidRequest
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse, sendable
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.slow import SlowCalls, patience_seconds
from flyweight.server.rpc.traffic_plans import plan_message, traffic_file, written_message
from flyweight.server.runtime.usage import memory_figure

_STATES = {
    State.READY: VariantState.VARIANT_STATE_READY,
    State.LOADING: VariantState.VARIANT_STATE_LOADING,
    State.UNLOADING: VariantState.VARIANT_STATE_UNLOADING,
    State.UNAVAILABLE: VariantState.VARIANT_STATE_UNAVAILABLE,
}


class Control:
    """Answers ControlService, but for rollouts, comparisons and outcomes."""

    def __init__(self, models: Models, slow_calls: SlowCalls) -> None:
        self._models = models
        self._slow_calls = slow_calls

    def list_variants(self, body: bytes, _call: Call) -> bytes:
        """List the variants of a model, or of all: state, role, share, memory and manifest.

        Raises:
            UnknownModel: the repository has no such model.
        """
        request = parse(ListVariantsRequest, body)
        table = self._models.table
        entries = [entry for entry in self._models.index() if entry.version]
        if request.model:
            entries = [entry for entry in entries if entry.name == request.model]
            if not entries:
                table.model(request.model)
        variants = [_described(entry, table) for entry in entries]
        return ListVariantsResponse(variants=variants).SerializeToString()

    def get_traffic(self, body: bytes, _call: Call) -> bytes:
        """Tell the plan in force for a model, and what is wrong with the one on disk if that is another.

        Raises:
            UnknownModel, NotReady: the model is not served.
        """
        request = parse(GetTrafficRequest, body)
        model = self._models.table.model(request.model)
        fault = sendable(" ".join(fault.reason for fault in model.faults if not fault.variant))
        plan = plan_message(model.plan)
        response = GetTrafficResponse(plan=plan, revision=model.revision, fault=fault)
        # A file that cannot be read has a fault; without a file, an empty plan is what stands there.
        if model.traffic is not None or not fault:
            response.written.CopyFrom(written_message(model.traffic))
        return response.SerializeToString()

    def set_traffic(self, body: bytes, call: Call) -> bytes:
        """Replace the traffic plan of a model, and answer when the new one is in force.

        Raises:
            InvalidRequest, Unsupported, QueueFull: the request is refused.
            UnknownModel, NotReady, TrafficPlanError, RepositoryError, Conflict, DeadlineExceeded: see
                lifecycle.changes.TrafficChanges.set.
        """
        request = parse(SetTrafficRequest, body)
        traffic = traffic_file(request.plan)
        with self._slow_calls.take():
            served = self._models.set_traffic(
                request.model, traffic, request.expected_revision, patience_seconds(call)
            )
        response = SetTrafficResponse(plan=plan_message(served.plan), revision=served.revision)
        return response.SerializeToString()

    def promote(self, body: bytes, call: Call) -> bytes:
        """Make a variant the baseline with all the traffic, and answer when that is in force.

        Raises:
            QueueFull, UnknownModel, UnknownVariant, NotReady, TrafficPlanError, RepositoryError, Conflict,
                DeadlineExceeded: see lifecycle.changes.TrafficChanges.promote.
        """
        request = parse(PromoteRequest, body)
        if not request.variant:
            raise InvalidRequest("The request names no variant to promote; name one.")
        with self._slow_calls.take():
            served = self._models.promote(request.model, request.variant, patience_seconds(call))
        response = PromoteResponse(plan=plan_message(served.plan), revision=served.revision)
        return response.SerializeToString()

    def roll_back(self, body: bytes, call: Call) -> bytes:
        """Undo the last promotion of a model, and answer when that is in force.

        Raises:
            QueueFull, UnknownModel, NotReady, TrafficPlanError, RepositoryError, Conflict, DeadlineExceeded:
                see lifecycle.changes.TrafficChanges.roll_back.
        """
        request = parse(RollbackRequest, body)
        with self._slow_calls.take():
            served = self._models.roll_back(request.model, patience_seconds(call))
        response = RollbackResponse(plan=plan_message(served.plan), revision=served.revision)
        return response.SerializeToString()


def _described(entry: IndexEntry, table: RoutingTable) -> Variant:
    described = Variant(
        model=sendable(entry.name),
        name=sendable(entry.version),
        state=_STATES.get(entry.state, VariantState.VARIANT_STATE_UNSPECIFIED),
        reason=sendable(entry.reason),
    )
    model = table.models.get(entry.name)
    loaded = model.variants.get(entry.version) if model is not None else None
    if model is None or loaded is None:
        return described
    is_baseline = entry.version == model.baseline
    described.role = Role.ROLE_BASELINE if is_baseline else Role.ROLE_CANDIDATE
    described.share_percent = model.plan.weight_of(entry.version) * 100
    described.memory_bytes = memory_figure(loaded.runtime.usage(), loaded.validated_pss_bytes)
    if loaded.manifest is not None:
        described.manifest.CopyFrom(loaded.manifest)
    return described
