import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import decode_tensors, encode_inputs
from flyweight.server.errors import Code, RunFailed, TimedOut, WorkerDied
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.records import Answerer, Rejection
from flyweight.server.runtime.fake import FAKE_SIGNATURE, FakeRuntime
from flyweight.server.runtime.seam import TensorSpec
from flyweight.server.traffic import Plan, Reason

MakeRequest = Callable[..., ModelInferRequest]
CALL = Call()


def infer(bench: Any, request: ModelInferRequest, call: Call = CALL) -> ModelInferResponse:
    return ModelInferResponse.FromString(bench.handlers["ModelInfer"](request.SerializeToString(), call))


def words(response: ModelInferResponse) -> tuple[str, str, str]:
    names = ("flyweight_variant", "flyweight_role", "flyweight_reason")
    variant, role, reason = (response.parameters[name].string_param for name in names)
    return variant, role, reason


def test_answers_with_raw_contents_and_says_who_answered(bench: Any, make_request: MakeRequest) -> None:
    response = infer(bench, make_request(rows=3, version="int8"))
    assert (response.model_name, response.model_version, response.id) == ("tiny", "int8", "q-1")
    assert words(response) == ("int8", "pinned", "pinned")
    assert not response.outputs[0].HasField("contents")
    outputs = decode_tensors(response.outputs, response.raw_output_contents)
    np.testing.assert_array_equal(outputs["y"], np.full((3, 4), 3, np.float32))


def test_a_pinned_baseline_is_pinned_to_the_caller_and_the_baseline_to_metrics(
    bench: Any, make_request: MakeRequest
) -> None:
    assert words(infer(bench, make_request(version="baseline")))[1] == "pinned"
    assert bench.notebook.records[0].answerer == Answerer("tiny", "baseline", "baseline")


def test_a_sticky_parameter_keeps_a_caller_on_one_variant(bench: Any, make_request: MakeRequest) -> None:
    answers = {words(infer(bench, make_request(flyweight_key="somebody"))) for _ in range(20)}
    assert len(answers) == 1
    assert answers.pop()[2] == "sticky"


def test_sticky_metadata_and_parameter_and_number_mean_the_same_caller(
    bench: Any, make_request: MakeRequest
) -> None:
    for user in range(20):
        numbered = make_request()
        numbered.parameters["flyweight_key"].int64_param = user
        call = Call(metadata=(("flyweight-key", str(user)),))
        assert words(infer(bench, make_request(), call)) == words(infer(bench, numbered))


def test_an_empty_key_is_no_key(bench: Any, make_request: MakeRequest) -> None:
    assert words(infer(bench, make_request(flyweight_key="")))[2] == "split"


def test_the_plan_may_rename_the_key(build: Callable[..., Any], make_request: MakeRequest) -> None:
    plan = Plan("baseline", (("baseline", 0.5), ("int8", 0.5)), "user", "x-user", Reason.SPLIT)
    bench = build(plan=plan)
    assert words(infer(bench, make_request(user="a")))[2] == "sticky"
    assert words(infer(bench, make_request(), Call(metadata=(("x-user", "a"),))))[2] == "sticky"
    assert words(infer(bench, make_request(flyweight_key="a")))[2] == "split"


def test_unknown_parameters_are_ignored(bench: Any, make_request: MakeRequest) -> None:
    infer(bench, make_request(priorities="1", anything="else"))


def test_typed_contents_are_read(bench: Any) -> None:
    request = ModelInferRequest(model_name="tiny", model_version="baseline")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    response = infer(bench, request)
    outputs = decode_tensors(response.outputs, response.raw_output_contents)
    np.testing.assert_array_equal(outputs["y"], [[2, 4, 6, 8]])


def name_it_z(request: ModelInferRequest) -> None:
    request.inputs[0].name = "z"


def call_it_int32(request: ModelInferRequest) -> None:
    request.inputs[0].datatype = "INT32"


def call_it_nonsense(request: ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP31"


def widen(request: ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [2, 2]


def shorten(request: ModelInferRequest) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def type_it_too(request: ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


def leave_it_out(request: ModelInferRequest) -> None:
    del request.inputs[:]
    del request.raw_input_contents[:]


def want_q(request: ModelInferRequest) -> None:
    request.outputs.add(name="q")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (name_it_z, "'z'"),
        (call_it_int32, "'x'"),
        (call_it_nonsense, "'x'"),
        (widen, "'x'"),
        (shorten, "'x'"),
        (type_it_too, "'x'"),
        (leave_it_out, "'x'"),
        (want_q, "'q'"),
    ],
)
def test_a_wrong_tensor_is_invalid_and_named(
    bench: Any, make_request: MakeRequest, change: Callable[[ModelInferRequest], None], name: str
) -> None:
    request = make_request()
    change(request)
    refusal = bench.refusal(request)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert name in refusal.sentence
    assert bench.notebook.records[0].code is Code.INVALID_ARGUMENT
    assert all(runtime.runs == 0 for runtime in bench.runtimes.values())


def test_bytes_that_are_no_message_are_invalid(bench: Any) -> None:
    refusal = bench.refusal(b"\xff\xff")
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "inference.ModelInferRequest" in refusal.sentence
    assert bench.notebook.records[0].answerer == Answerer()


def test_an_output_cannot_go_to_shared_memory_that_is_not_there(
    bench: Any, make_request: MakeRequest
) -> None:
    request = make_request()
    request.outputs.add(name="y").parameters["shared_memory_region"].string_param = "mine"
    refusal = bench.refusal(request)
    assert refusal.code is not Code.OK
    assert "output 'y'" in refusal.sentence or "shared memory" in refusal.sentence
    assert all(runtime.runs == 0 for runtime in bench.runtimes.values())


def test_a_parameter_of_an_output_is_read_by_its_type(bench: Any, make_request: MakeRequest) -> None:
    request = make_request()
    request.outputs.add(name="y").parameters["classification"].string_param = "3"
    refusal = bench.refusal(request)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "'y'" in refusal.sentence
    assert "'classification'" in refusal.sentence


def two_outputs(session_outputs: tuple[TensorSpec, ...]) -> FakeRuntime:
    signature = replace(FAKE_SIGNATURE, outputs=session_outputs)
    return FakeRuntime(signature=signature, function=lambda inputs: {"y": inputs["x"], "z": -inputs["x"]})


def test_bf16_does_not_pass_for_fp32(bench: Any) -> None:
    request = ModelInferRequest(model_name="tiny", model_version="baseline")
    encode_inputs(request, {"x": np.ones((1, 4), np.float32)}, datatypes={"x": "BF16"})
    refusal = bench.refusal(request)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "'x' is BF16" in refusal.sentence


def test_only_the_outputs_asked_for_are_sent(build: Callable[..., Any], make_request: MakeRequest) -> None:
    y, z = FAKE_SIGNATURE.outputs[0], replace(FAKE_SIGNATURE.outputs[0], name="z")
    bench, request = build(runtimes={"baseline": two_outputs((y, z))}), make_request(version="baseline")
    assert [output.name for output in infer(bench, request).outputs] == ["y", "z"]
    request.outputs.add(name="z")
    assert [output.name for output in infer(bench, request).outputs] == ["z"]


def test_an_output_that_the_configuration_leaves_out_is_not_sent(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    """The fake computes z as a session would, and the variant's signature has only y."""
    bench = build(runtimes={"baseline": two_outputs(FAKE_SIGNATURE.outputs)})
    response = infer(bench, make_request(version="baseline"))
    assert [output.name for output in response.outputs] == ["y"]


def test_an_unknown_model_is_named_and_counted_for_nobody(bench: Any, make_request: MakeRequest) -> None:
    request = make_request()
    request.model_name = "nothing"
    refusal = bench.refusal(request)
    assert refusal.code is Code.NOT_FOUND
    assert "'nothing'" in refusal.sentence
    assert bench.notebook.records[0].answerer == Answerer()


def test_a_model_without_a_ready_variant_is_not_ready(bench: Any, make_request: MakeRequest) -> None:
    request = make_request()
    request.model_name = "slow"
    refusal = bench.refusal(request)
    assert refusal.code is Code.UNAVAILABLE
    assert "'slow'" in refusal.sentence
    assert bench.notebook.records[0].answerer == Answerer("slow")


def test_an_unknown_variant_is_named_and_counted_for_its_model(bench: Any, make_request: MakeRequest) -> None:
    refusal = bench.refusal(make_request(version="int4"))
    assert refusal.code is Code.NOT_FOUND
    assert "'int4'" in refusal.sentence
    assert bench.notebook.records[0].answerer == Answerer("tiny")


def test_a_request_records_its_rows_and_times(bench: Any, make_request: MakeRequest) -> None:
    infer(bench, make_request(rows=5, version="int8"))
    (record,) = bench.notebook.records
    assert (record.answerer, record.code) == (Answerer("tiny", "int8", "candidate"), Code.OK)
    parts = (record.decode_seconds, record.queue_seconds, record.run_seconds, record.encode_seconds)
    assert all(part >= 0 for part in parts)
    assert record.total_seconds >= sum(parts)


def test_nothing_is_held_afterwards_even_when_the_model_fails(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    def fail(_: object) -> dict[str, Any]:
        raise RunFailed("The model failed on the inputs.")

    bench = build(runtimes={"baseline": FakeRuntime(function=fail), "int8": FakeRuntime()})
    refusal = bench.refusal(make_request(version="baseline"))
    assert (refusal.code, refusal.sentence) == (Code.INTERNAL, "The model failed on the inputs.")
    assert bench.notebook.held == []
    assert bench.gate.accepted_count == 0
    assert bench.models.table.models["tiny"].variants["baseline"].leases.held == 0
    assert bench.notebook.records[0].code is Code.INTERNAL


def test_a_full_server_refuses_unseen(build: Callable[..., Any], make_request: MakeRequest) -> None:
    gate = Gate(1)
    gate.open()
    bench = build(gate=gate)
    gate.enter()
    refusal = bench.refusal(make_request())
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    assert "--max-in-flight" in refusal.sentence
    assert refusal.trailing_metadata == (("grpc-retry-pushback-ms", "100"),)
    (record,) = bench.notebook.records
    assert (record.answerer, record.rejection) == (Answerer("tiny"), Rejection.QUEUE_FULL)


def test_a_timeout_in_the_queue_counts_as_a_deadline(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    def fail(_: object) -> dict[str, Any]:
        raise TimedOut("The request waited longer than its timeout.")

    bench = build(runtimes={"baseline": FakeRuntime(function=fail), "int8": FakeRuntime()})
    assert bench.refusal(make_request(version="baseline")).code is Code.DEADLINE_EXCEEDED
    assert bench.notebook.records[0].rejection is Rejection.DEADLINE


def test_a_passed_deadline_is_not_run(bench: Any, make_request: MakeRequest) -> None:
    refusal = bench.refusal(make_request(version="int8"), Call(deadline_monotonic=0.0))
    assert refusal.code is Code.DEADLINE_EXCEEDED
    assert bench.runtimes["int8"].runs == 0
    assert bench.notebook.records[0].rejection is Rejection.DEADLINE


@pytest.mark.parametrize(
    ("close", "words", "rejection"),
    [(False, "still loading", None), (True, "shutting down", Rejection.DRAINING)],
)
def test_a_starting_or_stopping_server_is_unavailable(
    build: Callable[..., Any],
    make_request: MakeRequest,
    close: bool,
    words: str,
    rejection: Rejection | None,
) -> None:
    gate = Gate(1)
    if close:
        gate.close()
    bench = build(gate=gate)
    refusal = bench.refusal(make_request())
    assert refusal.code is Code.UNAVAILABLE
    assert words in refusal.sentence
    assert bench.notebook.records[0].rejection is rejection


# --- a variant whose process died ---


def dying(_: object) -> dict[str, Any]:
    raise WorkerDied("The process of 'baseline' died.")


FALL_BACK = Plan("baseline", (("baseline", 1.0),), fallback="int8")


def test_another_variant_answers_for_one_whose_process_died(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    bench = build(plan=FALL_BACK, runtimes={"baseline": FakeRuntime(function=dying), "int8": FakeRuntime()})
    assert words(infer(bench, make_request())) == ("int8", "candidate", "fallback")
    (record,) = bench.notebook.records
    assert record.answerer == Answerer("tiny", "int8", "candidate")
    variants = bench.models.table.models["tiny"].variants
    assert [variant.leases.held for variant in variants.values()] == [0, 0]
    assert (bench.notebook.held, bench.gate.accepted_count) == ([], 0)


def test_nobody_answers_for_a_variant_that_was_asked_for(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    bench = build(plan=FALL_BACK, runtimes={"baseline": FakeRuntime(function=dying), "int8": FakeRuntime()})
    assert bench.refusal(make_request(version="baseline")).code is Code.UNAVAILABLE


def test_when_both_die_that_is_the_end_of_it(build: Callable[..., Any], make_request: MakeRequest) -> None:
    runtimes = {name: FakeRuntime(function=dying) for name in ("baseline", "int8")}
    bench = build(plan=FALL_BACK, runtimes=runtimes)
    assert bench.refusal(make_request()).code is Code.UNAVAILABLE
    assert [runtime.runs for runtime in runtimes.values()] == [1, 1]
    assert (bench.notebook.held, bench.gate.accepted_count) == ([], 0)


def test_what_was_answered_before_is_answered_without_a_run(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    bench = build(cached=("int8",))
    first, again = (infer(bench, make_request(version="int8")) for _ in range(2))
    assert first.raw_output_contents == again.raw_output_contents
    assert bench.runtimes["int8"].runs == 1


def test_the_answer_of_a_stand_in_is_not_kept_as_the_variants_own(
    build: Callable[..., Any], make_request: MakeRequest
) -> None:
    alive = threading.Event()

    def mortal(inputs: Any) -> dict[str, Any]:
        return {"y": inputs["x"] * 2} if alive.is_set() else dying(inputs)

    runtimes = {"baseline": FakeRuntime(function=mortal), "int8": FakeRuntime(scale=3)}
    bench = build(plan=FALL_BACK, runtimes=runtimes, cached=("baseline",))
    assert words(infer(bench, make_request()))[0] == "int8"
    alive.set()
    response = infer(bench, make_request())
    assert words(response)[0] == "baseline"
    outputs = decode_tensors(response.outputs, response.raw_output_contents)
    np.testing.assert_array_equal(outputs["y"], np.full((1, 4), 2, np.float32))
