"""Which plan is in force, for what traffic.yaml asks and what is ready."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import Lineage, VariantManifest
from flyweight.server.lifecycle.desired import DesiredModel, VariantSource
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.planning import default_baseline, keep_plan, plan_model
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.repository.fingerprint import Fingerprint
from flyweight.server.runtime.fake import FAKE_SIGNATURE, FakeRuntime
from flyweight.server.runtime.signature import Signature, TensorSpec
from flyweight.server.traffic.plan import Reason, parse_plan

PATH = Path("/repository/m/traffic.yaml")
X, Y = FAKE_SIGNATURE.inputs[0], FAKE_SIGNATURE.outputs[0]


def loaded(
    name: str, *, parent: str | None = None, created: str = "", signature: Signature = FAKE_SIGNATURE
) -> LoadedVariant:
    manifest = None
    if parent is not None:
        manifest = VariantManifest(created=created, lineage=Lineage(parent=parent))
    return LoadedVariant("m", name, signature, ModelConfig(), manifest, FakeRuntime(), Leases(name))


def ready(*names: str) -> dict[str, LoadedVariant]:
    return {name: loaded(name) for name in names}


def desired(wanted: str, traffic: str | None = None, error: str = "") -> DesiredModel:
    sources = {
        name: VariantSource("m", name, Path("/r/m") / name, "model.onnx", Fingerprint(), None)
        for name in wanted.split()
    }
    parsed = parse_plan(traffic, PATH) if traffic is not None else None
    return DesiredModel("m", sources, traffic=parsed, traffic_error=error)


def weights(
    plan_of: Mapping[str, LoadedVariant], wanted: str, traffic: str | None = None
) -> dict[str, float]:
    return {
        name: weight
        for name, weight in plan_model(desired(wanted, traffic), plan_of, None).plan.weights
        if weight
    }


def test_without_a_traffic_file_the_baseline_answers_all() -> None:
    assert weights(ready("baseline", "int8"), "baseline int8") == {"baseline": 1.0}


def test_the_split_is_followed() -> None:
    planned = plan_model(
        desired("baseline int8", "split: {baseline: 75, int8: 25}"), ready("baseline", "int8"), None
    )
    assert planned.plan.weights == (("baseline", 0.75), ("int8", 0.25))
    assert planned.faults == ()
    assert planned.last_good == planned.plan


def test_a_variant_that_is_on_its_way_lends_its_share_and_is_no_fault() -> None:
    planned = plan_model(
        desired("baseline int8", "split: {baseline: 20, int8: 80}"), ready("baseline"), None, failed=["fp16"]
    )
    assert planned.plan.weights == (("baseline", 1.0),)
    assert planned.faults == ()


def test_a_variant_that_failed_lends_its_share_and_is_named() -> None:
    planned = plan_model(
        desired("baseline int8 fp16", "split: {baseline: 20, int8: 50, fp16: 30}"),
        ready("baseline", "fp16"),
        None,
        failed=["int8"],
    )
    assert planned.plan.weights == (("baseline", 0.4), ("fp16", 0.6))
    assert [(fault.variant, fault.reason) for fault in planned.faults] == [
        ("int8", "The variant 'int8' is in the traffic plan and is not ready; the others answer.")
    ]
    assert planned.error == ""


def test_a_variant_that_is_not_on_disk_leaves_the_last_good_plan() -> None:
    both = ready("baseline", "int8")
    good = plan_model(desired("baseline int8", "split: {baseline: 75, int8: 25}"), both, None)
    bad = plan_model(desired("baseline int8", "split: {baseline: 75, int4: 25}"), both, good.last_good)
    assert bad.plan == good.plan
    assert bad.last_good == good.last_good
    assert "'int4'" in bad.error
    assert [fault.variant for fault in bad.faults] == [""]


def test_a_removed_variant_leaves_the_last_good_plan_for_those_that_are_left() -> None:
    split = "split: {baseline: 20, int8: 50, fp16: 30}"
    good = plan_model(desired("baseline int8 fp16", split), ready("baseline", "int8", "fp16"), None)
    left = plan_model(desired("baseline fp16", split), ready("baseline", "fp16"), good.last_good)
    assert left.plan.weights == (("baseline", 0.4), ("fp16", 0.6))
    assert left.error
    back = plan_model(desired("baseline int8 fp16", split), ready("baseline", "int8", "fp16"), left.last_good)
    assert back.plan == good.plan


def test_a_file_that_is_wrong_from_the_start_means_the_baseline() -> None:
    planned = plan_model(desired("baseline int8", error="It is wrong."), ready("baseline", "int8"), None)
    assert planned.plan.weights == (("baseline", 1.0),)
    assert planned.last_good is None
    assert planned.error == "It is wrong."


def test_when_nothing_of_the_split_is_left_the_baseline_answers() -> None:
    assert weights(ready("baseline"), "baseline int8", "split: {int8: 100}") == {"baseline": 1.0}


def test_while_the_usual_baseline_is_loading_it_stays_the_baseline_to_be() -> None:
    planned = plan_model(desired("baseline int8"), ready("int8"), None)
    assert planned.plan.weights == (("int8", 1.0),)
    assert planned.last_good is not None
    assert planned.last_good.baseline == "baseline"


def test_a_newly_published_variant_gets_no_traffic_by_itself() -> None:
    root = {"net": loaded("net", parent="", created="2026-01-01")}
    child = root | {"int8": loaded("int8", parent="net", created="2026-01-02")}
    second_root = child | {"a": loaded("a", parent="", created="2026-01-03")}
    for variants in (root, child, second_root):
        plan = plan_model(desired(" ".join(variants)), variants, None).plan
        assert plan.weights == (("net", 1.0),)


@pytest.mark.parametrize(
    ("names", "baseline"),
    [("z baseline", "baseline"), ("1 2 10", "10"), ("b a", "a"), ("int8 1", "1")],
)
def test_the_default_baseline(names: str, baseline: str) -> None:
    assert default_baseline(ready(*names.split())) == baseline


def test_a_manifest_without_a_parent_comes_before_numbers() -> None:
    variants = ready("7") | {"net": loaded("net", parent=""), "int8": loaded("int8", parent="net")}
    assert default_baseline(variants) == "net"


@pytest.mark.parametrize(
    ("signature", "difference"),
    [
        (Signature((TensorSpec("x", "FP16", (-1, 4)),), (Y,)), "inputs are other"),
        (Signature((TensorSpec("x", "FP32", (-1, 5)),), (Y,)), "inputs are other"),
        (Signature((TensorSpec("x", "FP32", (-1,)),), (Y,)), "inputs are other"),
        (Signature((X, TensorSpec("mask", "BOOL", (-1,))), (Y,)), "inputs are other"),
        (Signature((X,), (TensorSpec("z", "FP32", (-1, 4)),)), "outputs are other"),
    ],
)
def test_a_variant_with_other_tensors_gets_no_share_of_the_baselines_traffic(
    signature: Signature, difference: str
) -> None:
    variants = ready("baseline", "int8") | {"odd": loaded("odd", signature=signature)}
    split = "split: {baseline: 20, int8: 20, odd: 60}"
    planned = plan_model(desired("baseline int8 odd", split), variants, None)
    assert planned.plan.weights == (("baseline", 0.5), ("int8", 0.5))
    (fault,) = planned.faults
    assert fault.variant == "odd"
    assert difference in fault.reason


def test_more_outputs_and_optional_inputs_are_no_difference() -> None:
    more = Signature(
        (X, TensorSpec("k", "FP32", (), optional=True)), (Y, TensorSpec("features", "FP32", (-1, 64)))
    )
    variants = {"baseline": loaded("baseline"), "wide": loaded("wide", signature=more)}
    assert weights(variants, "baseline wide", "split: {baseline: 50, wide: 50}") == {
        "baseline": 0.5,
        "wide": 0.5,
    }


def test_a_model_that_is_about_to_go_keeps_its_plan() -> None:
    both = ready("baseline", "int8")
    good = plan_model(desired("baseline int8", "split: {baseline: 75, int8: 25}"), both, None)
    assert keep_plan(both, good.last_good) == good.plan
    assert keep_plan(ready("int8"), good.last_good).weights == (("int8", 1.0),)
    assert keep_plan(both, None).origin is Reason.DEFAULT
