"""What happens on disk while a real server is under traffic."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

pytestmark = pytest.mark.system

COMMAND = Path(sys.executable).with_name("flyweight")
CALLERS = 3
SCALES = {"baseline": 2, "int8": 3, "pruned": 5}


class Traffic:
    """Callers that ask without a pause, and remember every answer and every failure."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        client = triton.InferenceServerClient(self._address)
        x = np.ones((1, 4), np.float32)
        tensor = triton.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(x)
        while not self._stop.is_set():
            try:
                result = client.infer("tiny", [tensor])
            except triton.InferenceServerException as error:
                self._note(self.failures, str(error))
                continue
            variant = result.get_response().model_version
            if (result.as_numpy("y") == x * SCALES[variant]).all():
                self._note(self.answers, variant)
            else:
                self._note(self.failures, f"{variant} gave another variant's answer")
        client.close()

    def _note(self, notes: list[str], note: str) -> None:
        with self._changed:
            notes.append(note)
            self._changed.notify_all()

    def await_answers(self, is_there: Callable[[list[str]], bool]) -> None:
        """Wait until `is_there` holds of the answers from now on, or something failed."""
        with self._changed:
            start = len(self.answers)
            assert self._changed.wait_for(
                lambda: self.failures or is_there(self.answers[start:]), timeout=60
            ), set(self.answers[start:])
        assert self.failures == []

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def server(start_server: Callable[..., Any], server_repository: Path) -> Any:
    return start_server(server_repository)


@pytest.fixture
def traffic(server: Any) -> Iterator[Traffic]:
    made = Traffic(server.address)
    yield made
    made.stop()


def set_traffic(repository: Path, text: str) -> None:
    (repository / "tiny" / "traffic.yaml").write_text(text)


def only(variant: str, count: int = 50) -> Callable[[list[str]], bool]:
    """Hold when the last `count` answers are all the variant's."""
    return lambda answers: len(answers) >= count and set(answers[-count:]) == {variant}


def test_adding_replacing_and_removing_variants_under_traffic_fails_no_request(
    server: Any, traffic: Traffic, server_repository: Path, publish: Callable[..., Path]
) -> None:
    traffic.await_answers(lambda answers: {"baseline", "int8"} <= set(answers))

    publish("pruned", 5.0, parent="baseline")
    set_traffic(server_repository, "split: {baseline: 40, int8: 30, pruned: 30}\n")
    traffic.await_answers(lambda answers: "pruned" in answers)

    set_traffic(server_repository, "split: {pruned: 100}\n")
    traffic.await_answers(only("pruned"))

    shutil.rmtree(server_repository / "tiny" / "int8")
    publish("pruned", 5.0, parent="baseline")
    server.await_metric(
        lambda seen: (
            seen.get('flyweight_unloads_total{model="tiny",variant="int8"}') == 1
            and seen.get('flyweight_unloads_total{model="tiny",variant="pruned"}') == 1
        )
    )

    set_traffic(server_repository, "split: {baseline: 100}\n")
    traffic.await_answers(only("baseline"))
    shutil.rmtree(server_repository / "tiny" / "pruned")
    server.await_metric(lambda seen: 'flyweight_variant_ready{model="tiny",variant="pruned"}' not in seen)
    traffic.await_answers(only("baseline"))

    traffic.stop()
    assert traffic.failures == []
    counted = {
        name: value for name, value in server.scrape().items() if name.startswith("flyweight_requests_total")
    }
    assert all('code="OK"' in name for name in counted), counted
    assert sum(counted.values()) == len(traffic.answers)


def index_of(client: triton.InferenceServerClient) -> dict[str, tuple[str, str]]:
    return {m.version: (m.state, m.reason) for m in client.get_model_repository_index().models}


def test_a_corrupt_variant_is_told_and_disturbs_nobody(
    server: Any, traffic: Traffic, publish: Callable[..., Path], wait_for: Callable[..., Any]
) -> None:
    folder = publish("pruned", 5.0, parent="baseline")
    broken = folder.with_name("broken")
    staging = folder.with_name(".broken")
    shutil.copytree(folder, staging)
    (staging / "model.onnx").write_bytes(b"not a model")
    staging.rename(broken)
    client = triton.InferenceServerClient(server.address)
    # A variant that waits for its load has a reason as well.
    index = wait_for(lambda: index_of(client), lambda seen: seen.get("broken", ("", ""))[0] == "UNAVAILABLE")
    assert "model.onnx" in index["broken"][1]
    assert all(index[name] == ("READY", "") for name in ("baseline", "int8"))
    traffic.await_answers(lambda answers: {"baseline", "int8"} <= set(answers))
    failed = 'flyweight_loads_total{model="tiny",outcome="failed",variant="broken"}'
    assert server.scrape()[failed] >= 1
    traffic.stop()
    assert traffic.failures == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("split: {baseline: 50, int8: 40}\n", "add up to 90"),
        ("split: {baseline: 50, int4: 50}\n", "'int4'"),
        ("split: {baseline: 50, int8: 50\n", "not valid YAML"),
        ("spilt: {baseline: 50, int8: 50}\n", "'spilt'"),
    ],
)
def test_a_bad_traffic_file_is_told_and_the_last_good_plan_stays(
    server: Any,
    traffic: Traffic,
    server_repository: Path,
    wait_for: Callable[..., Any],
    text: str,
    part: str,
) -> None:
    set_traffic(server_repository, "split: {int8: 100}\n")
    traffic.await_answers(only("int8"))
    set_traffic(server_repository, text)
    client = triton.InferenceServerClient(server.address)
    index = wait_for(lambda: index_of(client), lambda seen: seen.get("", ("", ""))[1])
    assert part in index[""][1]
    assert "traffic.yaml" in index[""][1]
    assert server.scrape()['flyweight_traffic_plan_errors_total{model="tiny"}'] >= 1
    traffic.await_answers(only("int8"))
    assert part in server.log.read_text()
    traffic.stop()
    assert traffic.failures == []


def command(server: Any, *words: str) -> Any:
    """Run a command of the client against the server, and return what it prints as JSON."""
    done = subprocess.run(
        [COMMAND, *words, "--json", "--url", server.address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_traffic_changed_by_command_is_followed_under_traffic_and_survives_a_restart(
    server: Any, traffic: Traffic, server_repository: Path, start_server: Callable[..., Any]
) -> None:
    state = command(server, "traffic", "set", "tiny", "int8=100", "--label", "canary=int8")
    assert state["split"] == {"int8": 100}
    traffic.await_answers(only("int8"))
    assert command(server, "promote", "tiny", "canary")["baseline"] == "int8"
    traffic.await_answers(only("int8"))
    assert command(server, "rollback", "tiny")["baseline"] == "baseline"
    traffic.await_answers(only("baseline"))
    command(server, "promote", "tiny", "int8")
    traffic.stop()
    assert traffic.failures == []
    server.signal()
    assert server.wait() == 0
    again = start_server(server_repository)
    state = command(again, "traffic", "get", "tiny")
    assert (state["baseline"], state["labels"]) == ("int8", {"canary": "int8"})
    assert command(again, "rollback", "tiny")["baseline"] == "baseline"


def test_a_label_can_be_asked_for_as_a_version(server: Any) -> None:
    command(server, "traffic", "set", "tiny", "--label", "canary=int8")
    client = triton.InferenceServerClient(server.address)
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    result = client.infer("tiny", [tensor], model_version="canary")
    assert result.get_response().model_version == "int8"
    with pytest.raises(triton.InferenceServerException, match="'nobody'"):
        client.infer("tiny", [tensor], model_version="nobody")


def test_what_a_stock_client_sends_with_a_load_is_served_until_the_next_load(
    start_server: Callable[..., Any], server_repository: Path, tmp_path: Path
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    server = start_server(server_repository, "--upload-folder", uploads)
    client = triton.InferenceServerClient(server.address)
    model = (server_repository / "tiny" / "int8" / "model.onnx").read_bytes()
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))

    client.load_model("sent", config='{"max_batch_size": 4}', files={"file:1/model.onnx": model})
    assert client.get_model_config("sent", as_json=True)["config"]["max_batch_size"] == 4
    assert (client.infer("sent", [tensor]).as_numpy("y") == 3).all()
    with pytest.raises(triton.InferenceServerException, match=r"sent/1/model\.onnx"):
        client.load_model("sent", config="{}", files={"file:1/model.onnx": b"broken"})
    assert (client.infer("sent", [tensor]).as_numpy("y") == 3).all(), "what was served still is"

    client.load_model("tiny", config='{"max_batch_size": 2}')
    assert client.get_model_config("tiny", as_json=True)["config"]["max_batch_size"] == 2
    client.load_model("tiny")
    assert client.get_model_config("tiny", as_json=True)["config"]["max_batch_size"] > 2

    assert list(uploads.glob("*/*/sent"))
    client.unload_model("sent", unload_dependents=True)
    assert not client.is_model_ready("sent")
    server.signal()
    assert server.wait() == 0
    assert not list(uploads.iterdir())


def test_what_is_published_is_served_long_before_the_next_poll(
    start_server: Callable[..., Any], server_repository: Path, publish: Callable[..., Path], wait_for: Any
) -> None:
    server = start_server(server_repository, "--poll-seconds", "3600")
    publish("pruned", 5.0, parent="baseline")
    client = triton.InferenceServerClient(server.address)
    wait_for(lambda: index_of(client), lambda seen: seen.get("pruned") == ("READY", ""))


def test_a_load_beyond_the_memory_limit_is_refused_with_its_numbers(
    start_server: Callable[..., Any], server_repository: Path
) -> None:
    server = start_server(server_repository, "--memory-limit-megabytes", "16")
    assert server.counts == (0, 0)
    index = index_of(triton.InferenceServerClient(server.address))
    assert {state for state, _ in index.values()} == {"UNAVAILABLE"}
    assert "of the 17 MB of --memory-limit-megabytes only 0 MB are left" in index["int8"][1]
