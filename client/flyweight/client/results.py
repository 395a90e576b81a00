"""What a client's calls return: frozen values, free of protobuf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from flyweight.client.errors import InvalidResponse

Array = NDArray[Any]
Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One answer, and who gave it.

    Attributes:
        outputs: every output by name, in the model's order; read-only arrays.
        model: the model that answered.
        variant: the variant that answered; the protocol's `model_version`.
        role: "baseline", "candidate" or "pinned"; empty when the server is not flyweight.
        reason: why this variant: "split", "sticky", "pinned", "default" or "only"; empty likewise.
        request_id: the id the request was sent with.
        parameters: everything else that the server said about its answer.
    """

    outputs: Mapping[str, Array]
    model: str
    variant: str
    role: str
    reason: str
    request_id: str
    parameters: Mapping[str, Scalar]

    @property
    def output(self) -> Array:
        """The output of a model that has one.

        Raises:
            InvalidResponse: there are several, or none.
        """
        if len(self.outputs) != 1:
            names = ", ".join(self.outputs) or "none"
            raise InvalidResponse(
                f"model {self.model!r} answered {len(self.outputs)} outputs ({names}); name one."
            )
        return next(iter(self.outputs.values()))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a model says about one input or output.

    Attributes:
        name: the tensor's name.
        datatype: the protocol's word, "FP32" for example.
        shape: its axes, the batch axis included; -1 where any length goes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a server says about a model, or about one variant of it."""

    name: str
    variants: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's name, version, and the protocol extensions it knows."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VariantState:
    """One line of the repository's index.

    Attributes:
        model: the model's name.
        variant: the variant's name; empty where the line is about the whole model.
        state: "READY", "LOADING", "UNAVAILABLE", … as the server names it.
        reason: why it is in that state; empty when there is nothing to say.
    """

    model: str
    variant: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VariantTraffic:
    """A variant's part in the traffic of its model.

    Attributes:
        model: the model's name.
        variant: the variant's name.
        role: "baseline" or "candidate"; empty when the server does not say.
        share_percent: its share of the requests that name no variant.
        memory_bytes: what it holds in the server that answered; 0 when not known.
    """

    model: str
    variant: str
    role: str
    share_percent: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """Who answers the requests of a model that name no variant, and what stands in.

    Attributes:
        baseline: the variant that the others are measured against; empty leaves it to the server.
        split: shares in percent by variant, adding up to 100; empty gives all to the baseline.
        labels: other names for variants, by which they may be asked for.
        fallback: answers when the process of the variant that was chosen died; empty for none.
        overflow: answers what a full queue would refuse; empty for none.
        overflow_above: the share of a full queue, from 0 to 1, above which it does.
        sticky_parameter: the request parameter with the caller's key; empty means the default one.
        sticky_metadata: the header with the caller's key; empty means the default one.
    """

    baseline: str = ""
    split: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    fallback: str = ""
    overflow: str = ""
    overflow_above: float = 0.0
    sticky_parameter: str = ""
    sticky_metadata: str = ""


@dataclass(frozen=True, slots=True)
class TrafficState:
    """The traffic plan of a model as it is in force.

    Attributes:
        model: the model's name.
        plan: the plan.
        revision: names this state of it; every change gives another.
        fault: why the plan in the repository is not the one in force; empty when it is.
        written: the plan as it stands in the repository, which is the one to change: the one in force leaves
            out what is not ready. None where the server did not say.
    """

    model: str
    plan: TrafficPlan
    revision: str
    fault: str
    written: TrafficPlan | None


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something happened and how long all of it took together, in seconds."""

    count: int
    total_seconds: float


@dataclass(frozen=True, slots=True)
class VariantStatistics:
    """What a server counted for one variant since it was loaded.

    Attributes:
        model: the model's name.
        variant: the variant's name.
        inferences: rows answered.
        executions: runs of the model; fewer than `inferences` where rows were batched.
        stages: durations by the protocol's names: "success", "fail", "queue", "compute_input",
            "compute_infer", "compute_output".
    """

    model: str
    variant: str
    inferences: int
    executions: int
    stages: Mapping[str, Duration]
