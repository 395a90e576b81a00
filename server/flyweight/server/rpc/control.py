"""flyweight.control.v1: what can be asked of it so far. Changing traffic is done in the repository."""

from collections.abc import Iterator
from hashlib import sha256

from flyweight.protos.control.v1.control_pb2 import (
    GetTrafficRequest,
    GetTrafficResponse,
    ListVariantsRequest,
    ListVariantsResponse,
    Role,
    StickyKey,
    TrafficPlan,
    TrafficShare,
    Variant,
    VariantState,
)
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse, sendable
from flyweight.server.rpc.models import Models
from flyweight.server.traffic import Plan

_STATES = {
    State.READY: VariantState.VARIANT_STATE_READY,
    State.LOADING: VariantState.VARIANT_STATE_LOADING,
    State.UNLOADING: VariantState.VARIANT_STATE_UNLOADING,
    State.UNAVAILABLE: VariantState.VARIANT_STATE_UNAVAILABLE,
}


class Control:
    """Answers the reading half of ControlService."""

    def __init__(self, models: Models) -> None:
        self._models = models

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
        plan = TrafficPlan(
            baseline=model.plan.baseline,
            shares=_shares(model.plan),
            sticky=StickyKey(parameter=model.plan.sticky_parameter, metadata=model.plan.sticky_metadata),
        )
        fault = sendable(" ".join(fault.reason for fault in model.faults if not fault.variant))
        revision = sha256(plan.SerializeToString(deterministic=True)).hexdigest()[:16]
        return GetTrafficResponse(plan=plan, revision=revision, fault=fault).SerializeToString()


def _shares(plan: Plan) -> Iterator[TrafficShare]:
    for variant, weight in plan.weights:
        yield TrafficShare(variant=variant, percent=weight * 100)


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
    described.memory_bytes = loaded.memory.load_pss_bytes
    if loaded.manifest is not None:
        described.manifest.CopyFrom(loaded.manifest)
    return described
