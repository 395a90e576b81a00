"""What a snapshot of the repository asks to be served. Pure.

Named variants are all wanted. Of plain numeric folders (no manifest) Triton's version policy decides: the
latest one, unless config.pbtxt says otherwise; a version that traffic.yaml names is wanted as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.variant import MANIFEST_FILE, MODEL_FILE
from flyweight.protos.variant.names import CODED_FILE
from flyweight.server.errors import LoadFailed, TrafficPlanError
from flyweight.server.repository.fingerprint import FileStamp, Fingerprint
from flyweight.server.repository.model_config import is_ensemble, named_files, parse_model_config
from flyweight.server.repository.scan import CONFIG_FILE, LARGEST_TEXT_CHARACTERS, TRAFFIC_FILE
from flyweight.server.repository.snapshot import Fault, ModelSnapshot, Snapshot, VariantSnapshot
from flyweight.server.traffic.plan import TrafficFile, parse_plan


@dataclass(frozen=True, slots=True)
class VariantSource:
    """Everything that a load depends on; two equal sources need no reload.

    `model_file` is empty for an ensemble, whose `steps` are the names of the models it runs. `files` are the
    files beside config.pbtxt that it names.
    """

    model: str
    variant: str
    folder: Path
    model_file: str
    fingerprint: Fingerprint
    config_text: str | None
    files: tuple[FileStamp, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def is_ensemble(self) -> bool:
        """Tell whether it runs other models and has no file of its own."""
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """What of one model is wanted.

    `wanted` is to be served. `kept` stays if it is served, and is not loaded: nobody can tell whether it is
    wanted. `dropped` is on disk and not wanted. `traffic` is None when there is no traffic.yaml, and when
    there is one with the error in `traffic_error`.
    """

    name: str
    wanted: Mapping[str, VariantSource] = field(default_factory=lambda: MappingProxyType({}))
    kept: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    traffic: TrafficFile | None = None
    traffic_error: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted of the whole repository."""

    models: Mapping[str, DesiredModel] = field(default_factory=lambda: MappingProxyType({}))
    faults: tuple[Fault, ...] = ()


def desire(
    snapshot: Snapshot,
    is_admitted: Callable[[str], bool] = lambda _: True,
    may_follow: Callable[[str], bool] = lambda _: False,
) -> Desired:
    """Return what `snapshot` asks for; models that are not admitted are left out.

    Those that an admitted ensemble runs are admitted with it if they may follow.
    """
    admitted = _with_steps(snapshot, {name for name in snapshot.models if is_admitted(name)}, may_follow)
    models = {
        name: _desire_model(model, tuple(fault for fault in snapshot.faults if fault.model == name))
        for name, model in snapshot.models.items()
        if name in admitted
    }
    faults = tuple(fault for fault in snapshot.faults if fault.model not in models)
    return Desired(MappingProxyType({n: m for n, m in models.items() if m is not None}), faults)


def _with_steps(snapshot: Snapshot, admitted: set[str], may_follow: Callable[[str], bool]) -> set[str]:
    found, new = set(admitted), set(admitted)
    while new and len(found) < len(snapshot.models):
        named = {step for name in new for step in _steps(_read_config(snapshot.models[name])[0])}
        new = {step for step in named - found if step in snapshot.models and may_follow(step)}
        found |= new
    return found


def _desire_model(model: ModelSnapshot, faults: tuple[Fault, ...]) -> DesiredModel | None:
    config, config_error = _read_config(model)
    traffic, traffic_error = _read_traffic(model)
    candidates = _candidates(model, config)
    if not candidates and config is None and not config_error and not faults:
        return None
    named = _named(traffic)
    is_unsure = bool(traffic_error or config_error) or not named <= set(candidates)
    plain = {name for name, variant in candidates.items() if _is_plain_number(name, variant)}
    numbers = _numbers(set(candidates), plain, config)
    wanted = {
        name: _source(model, variant, config)
        for name, variant in candidates.items()
        if name in numbers.wanted or (name in named and not numbers.strict) or not numbers.governs(name)
    }
    left = frozenset(candidates) - frozenset(wanted)
    return DesiredModel(
        name=model.name,
        wanted=MappingProxyType(wanted),
        kept=left if is_unsure else frozenset(),
        dropped=frozenset() if is_unsure else left,
        traffic=traffic,
        traffic_error=traffic_error,
        faults=faults + _missing_files(model, candidates, config),
    )


def _read_config(model: ModelSnapshot) -> tuple[ModelConfig | None, str]:
    if model.config_text is None:
        return None, ""
    try:
        return parse_model_config(model.config_text, model.folder / CONFIG_FILE), ""
    except LoadFailed as error:
        # Each variant's load says it again, so that it stands in the index beside what it concerns.
        return None, str(error)


def _read_traffic(model: ModelSnapshot) -> tuple[TrafficFile | None, str]:
    if model.traffic_text is None:
        return None, ""
    path = model.folder / TRAFFIC_FILE
    # Megabytes of YAML take seconds, and of a text that was read in part nobody knows what it says.
    if len(model.traffic_text) > LARGEST_TEXT_CHARACTERS:
        return None, f"{path} is longer than {LARGEST_TEXT_CHARACTERS} characters; shorten it."
    try:
        return parse_plan(model.traffic_text, path), ""
    except TrafficPlanError as error:
        return None, str(error)


def _named(traffic: TrafficFile | None) -> set[str]:
    return set() if traffic is None else set(traffic.named())


def _model_file(config: ModelConfig | None) -> str:
    return (config.default_model_filename if config is not None else "") or MODEL_FILE


def _candidates(model: ModelSnapshot, config: ModelConfig | None) -> dict[str, VariantSnapshot]:
    """Return the folders that hold a variant: those with a manifest or a model file.

    Of an ensemble every version folder is one: there is nothing to put into it.
    """
    if is_ensemble(config):
        return {name: variant for name, variant in model.variants.items() if is_number(name)}
    return {
        name: variant
        for name, variant in model.variants.items()
        if variant.fingerprint.has(MANIFEST_FILE)
        or variant.fingerprint.has(_model_file(config))
        or variant.fingerprint.has(MODEL_FILE)
        or variant.fingerprint.has(CODED_FILE)
    }


def _source(model: ModelSnapshot, variant: VariantSnapshot, config: ModelConfig | None) -> VariantSource:
    named = _model_file(config)
    wanted_files = named_files(config)
    files = tuple(stamp for stamp in model.files.files if stamp.path in wanted_files)
    steps = _steps(config)
    # The default file name is Triton's word for its own folders; what the compressor publishes is model.onnx,
    # or its coded form. A plain model stands before a coded one: it is what can be looked into, and loads
    # sooner. Without either, model.onnx is what an error names.
    there = [name for name in (named, MODEL_FILE, CODED_FILE) if variant.fingerprint.has(name)]
    model_file = there[0] if there else MODEL_FILE
    return VariantSource(
        model=model.name,
        variant=variant.name,
        folder=variant.folder,
        model_file="" if steps else model_file,
        fingerprint=variant.fingerprint,
        config_text=model.config_text,
        files=files,
        steps=steps,
    )


def _steps(config: ModelConfig | None) -> tuple[str, ...]:
    if config is None:
        return ()
    return tuple(sorted({step.model_name for step in config.ensemble_scheduling.step}))


def _is_plain_number(name: str, variant: VariantSnapshot) -> bool:
    return is_number(name) and not variant.fingerprint.has(MANIFEST_FILE)


def is_number(name: str) -> bool:
    """Tell whether a variant's name is a version number, as Triton has them."""
    return name.isascii() and name.isdigit()


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Which numeric folders are governed by the version policy, and which of them it wants.

    `strict` says that the policy is written down, so that nothing else adds to it.
    """

    governed: frozenset[str]
    wanted: frozenset[str]
    strict: bool

    def governs(self, name: str) -> bool:
        return name in self.governed


def _numbers(names: set[str], plain: set[str], config: ModelConfig | None) -> _Numbers:
    strict = config is not None and config.HasField("version_policy")
    # What a manifest describes was published here, and is served unless a policy is written down.
    governed = {name for name in names if is_number(name)} if strict else plain
    newest_first = sorted(governed, key=lambda name: (int(name), name), reverse=True)
    policy = config.version_policy if config is not None else None
    choice = None if policy is None else policy.WhichOneof("policy_choice")
    if policy is not None and choice == "all":
        wanted = set(governed)
    elif policy is not None and choice == "specific":
        versions = set(policy.specific.versions)
        wanted = {name for name in governed if int(name) in versions}
    else:
        count = policy.latest.num_versions if policy is not None else 0
        wanted = set(newest_first[: count or 1])
    return _Numbers(frozenset(governed), frozenset(wanted), strict)


def _missing_files(
    model: ModelSnapshot, candidates: Mapping[str, VariantSnapshot], config: ModelConfig | None
) -> tuple[Fault, ...]:
    """Return a fault for every version folder without a model, and for a model without variants."""
    faults = [
        Fault(model.name, name, f"{variant.folder} holds no {_model_file(config)}; copy the model there.")
        for name, variant in model.variants.items()
        if name not in candidates and is_number(name)
    ]
    # Triton's log names these and serves the others.
    specific = config.version_policy.specific.versions if config is not None else ()
    there = {int(name) for name in model.variants if is_number(name)}
    faults += [
        Fault(model.name, "", f"config.pbtxt asks for version {version} of {model.name}, which is not there.")
        for version in sorted(set(specific) - there)
    ]
    if not candidates and not faults:
        advice = (
            "holds no version; make an empty folder 1, which is all an ensemble needs."
            if is_ensemble(config)
            else "holds no variant; publish one, or remove it."
        )
        faults.append(Fault(model.name, "", f"{model.folder} {advice}"))
    return tuple(faults)
