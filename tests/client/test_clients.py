"""What both clients do, each against a real server on loopback."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from flyweight.client import (
    AsyncClient,
    Client,
    ClientError,
    Compression,
    DeadlineExceeded,
    InvalidRequest,
    InvalidResponse,
    NotFound,
    Settings,
    TensorInfo,
    Unsupported,
    VariantState,
)
from flyweight.client.testing import FakeModel, FakeServer, serve_fake

X = np.array([[0.25, 0.5, 1]], dtype=np.float32)


def test_predict_returns_outputs_and_who_answered(call: Any, fake: FakeServer) -> None:
    prediction = call(fake.address, "predict", "digits", {"pixels": X}, request_id="r1")
    assert prediction.output.tolist() == [[0.5, 1, 2]]
    assert prediction.outputs["logits"].dtype == np.float32
    told = (prediction.model, prediction.variant, prediction.role, prediction.reason, prediction.request_id)
    assert told == ("digits", "baseline", "baseline", "default", "r1")
    assert not prediction.parameters


def test_a_pinned_variant_answers(call: Any, fake: FakeServer) -> None:
    prediction = call(fake.address, "predict", "digits", {"pixels": X}, variant="int8")
    assert (prediction.variant, prediction.role) == ("int8", "pinned")
    assert prediction.output.tolist() == [[0, 1, 2]]


def test_a_bare_array_goes_to_the_only_input(call: Any, fake: FakeServer) -> None:
    assert call(fake.address, "predict", "digits", X).output.tolist() == [[0.5, 1, 2]]
    assert fake.requests[0].inputs[0].name == "pixels"


def test_a_bare_array_is_refused_where_it_does_not_say_which_input(call: Any, fake: FakeServer) -> None:
    with pytest.raises(InvalidRequest, match="mapping"):
        call(fake.address, "predict", "echo", X)


def test_every_array_type_comes_back_as_it_went(call: Any, fake: FakeServer) -> None:
    arrays = {
        name: np.arange(4).astype(name).reshape(2, 2)
        for name in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
    }
    arrays["empty"] = np.zeros((0, 3), dtype=np.float32)
    arrays["scalar"] = np.array(3.5)
    arrays["bytes"] = np.array([b"a\0", "é".encode(), b""], dtype=object)
    outputs = call(fake.address, "predict", "echo", arrays).outputs
    for name, array in arrays.items():
        assert outputs[name].dtype == array.dtype
        assert outputs[name].shape == array.shape
        assert outputs[name].tolist() == array.tolist()


def test_only_the_outputs_asked_for_come_back(call: Any, fake: FakeServer) -> None:
    prediction = call(fake.address, "predict", "echo", {"a": X, "b": X, "c": X}, outputs=["c", "a"])
    assert list(prediction.outputs) == ["c", "a"]


def test_several_outputs_must_be_taken_by_name(call: Any, fake: FakeServer) -> None:
    prediction = call(fake.address, "predict", "echo", {"a": X, "b": X})
    with pytest.raises(InvalidResponse, match="2 outputs"):
        _ = prediction.output


def test_health_says_yes(call: Any, fake: FakeServer) -> None:
    assert call(fake.address, "is_live")
    assert call(fake.address, "is_ready")
    assert call(fake.address, "is_model_ready", "digits")
    assert call(fake.address, "is_model_ready", "digits", "int8")


def test_health_says_no_instead_of_raising(call: Any, fake: FakeServer) -> None:
    assert not call(fake.address, "is_model_ready", "nobody")
    assert not call(fake.address, "is_model_ready", "digits", "fp4")
    assert not call("127.0.0.1:1", "is_live")
    assert not call("127.0.0.1:1", "is_ready")


def test_the_server_describes_itself_and_its_models(call: Any, fake: FakeServer) -> None:
    assert call(fake.address, "server").name == "flyweight-fake"
    info = call(fake.address, "model", "digits")
    assert (info.name, info.variants) == ("digits", ("baseline", "int8"))
    assert info.inputs == (TensorInfo("pixels", "FP32", (-1, 3)),)
    assert info.outputs == (TensorInfo("logits", "FP32", (-1, 3)),)
    assert call(fake.address, "config", "digits").name == "digits"


def test_models_are_listed_loaded_and_unloaded(call: Any, fake: FakeServer) -> None:
    call(fake.address, "unload", "digits")
    listed = call(fake.address, "models")
    assert VariantState("digits", "int8", "UNAVAILABLE", "unloaded") in listed
    assert [state.model for state in call(fake.address, "models", ready_only=True)] == ["echo"]
    with pytest.raises(NotFound):
        call(fake.address, "predict", "digits", {"pixels": X})
    call(fake.address, "load", "digits")
    assert call(fake.address, "predict", "digits", {"pixels": X}).variant == "baseline"


def test_statistics_are_told_by_variant(call: Any, fake: FakeServer) -> None:
    call(fake.address, "predict", "digits", {"pixels": X}, variant="int8")
    counts = {(s.model, s.variant): s.inferences for s in call(fake.address, "statistics")}
    assert counts == {("digits", "baseline"): 0, ("digits", "int8"): 1, ("echo", "baseline"): 0}
    assert [s.variant for s in call(fake.address, "statistics", "digits", "int8")] == ["int8"]


def test_what_the_server_does_not_implement_is_unsupported(call: Any, fake: FakeServer) -> None:
    with pytest.raises(Unsupported):
        call(fake.address, "traffic")


def test_metadata_of_the_client_and_of_the_call_arrive_together(call: Any, fake: FakeServer) -> None:
    settings = Settings(metadata={"X-Team": "a"}, bearer_token="t")
    call(fake.address, "predict", "echo", {"a": X}, settings=settings, metadata={"X-Trace": "b"})
    metadata = fake.received[0].metadata
    assert (metadata["x-team"], metadata["x-trace"], metadata["authorization"]) == ("a", "b", "Bearer t")


@pytest.mark.parametrize("compression", list(Compression))
def test_compressed_requests_are_understood(call: Any, fake: FakeServer, compression: Compression) -> None:
    settings = Settings(compression=compression)
    assert call(fake.address, "predict", "digits", X, settings=settings).output.shape == (1, 3)


def test_a_deadline_ends_the_wait(call: Any) -> None:
    release = threading.Event()

    def hang(inputs: Any) -> Any:
        release.wait(60)
        return inputs

    with serve_fake({"slow": hang}) as server:
        with pytest.raises(DeadlineExceeded, match=r"model 'slow' .* within 0\.05 s"):
            call(server.address, "predict", "slow", {"x": X}, timeout_seconds=0.05)
        release.set()


@pytest.mark.parametrize(
    ("method", "args"), [("predict", ("digits", X)), ("predict", ("digits", {"pixels": X})), ("models", ())]
)
def test_a_misspelt_option_is_a_bug_and_not_ignored(
    call: Any, fake: FakeServer, method: str, args: Any
) -> None:
    with pytest.raises(TypeError, match=r"takes no timeout;.*timeout_seconds"):
        call(fake.address, method, *args, timeout=5)
    with pytest.raises(TypeError, match="takes no variant"):
        call(fake.address, "models", variant="int8")


def test_a_response_larger_than_grpcs_usual_limit_arrives(call: Any, fake: FakeServer) -> None:
    large = np.zeros((5 << 20) // 4, dtype=np.float32)
    assert call(fake.address, "predict", "echo", {"x": large}).output.nbytes == 5 << 20


def test_a_response_larger_than_allowed_is_refused(call: Any, fake: FakeServer) -> None:
    with pytest.raises(ClientError, match="larger than max"):
        call(fake.address, "predict", "echo", {"x": np.zeros(999)}, settings=Settings(max_message_bytes=100))


def test_the_only_input_is_asked_for_once_and_again_after_a_refusal(fake: FakeServer) -> None:
    with Client(fake.address) as client:
        client.predict("digits", X)
        fake.models["digits"] = FakeModel({"v2": dict}, inputs=(TensorInfo("image", "FP32", (-1, 3)),))
        with pytest.raises(InvalidRequest, match="image"):
            client.predict("digits", X)
        assert client.predict("digits", X).variant == "v2"


def test_one_client_serves_many_threads(fake: FakeServer) -> None:
    results: dict[int, list[list[float]]] = {}
    with Client(fake.address) as client:

        def ask(number: int) -> None:
            results[number] = client.predict("echo", {"x": np.full((1, 1), number)}).output.tolist()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [[number]] for number in range(16)}


def test_many_asyncio_calls_share_one_client(fake: FakeServer) -> None:
    async def run() -> list[int]:
        async with AsyncClient(fake.address) as client:
            answers = await asyncio.gather(*(client.predict("echo", {"x": [n]}) for n in range(16)))
        return [int(answer.output[0]) for answer in answers]

    assert asyncio.run(run()) == list(range(16))


def test_a_cancelled_task_ends_at_once(fake: FakeServer) -> None:
    release, entered = threading.Event(), threading.Event()

    def hang(inputs: Any) -> Any:
        entered.set()
        release.wait(60)
        return inputs

    fake.models["slow"] = FakeModel({"1": hang})

    async def run() -> None:
        async with AsyncClient(fake.address) as client:
            task = asyncio.create_task(client.predict("slow", {"x": X}))
            await asyncio.to_thread(entered.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    release.set()


def test_an_asyncio_client_that_made_no_call_closes_quietly() -> None:
    async def run() -> None:
        async with AsyncClient("127.0.0.1:1"):
            pass

    asyncio.run(run())
