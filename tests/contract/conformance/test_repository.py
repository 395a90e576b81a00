"""RepositoryIndex, Load and Unload: models come and go, and the others do not notice.

Source of all: Triton, protocol extensions, "Model Repository Extension". The models that come and go are
`transpose` and `identity_fp64`; each is put back.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from oip.cases import BEWILDERED, ROBUSTNESS, SILENCE, Code, case, extension
from oip.requests import add_raw, request
from oip.survey import Survey
from oip.target import Answer, Target, eventually

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelConfigRequest,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)

REPOSITORY = extension("model_repository")
COMES_AND_GOES = "transpose"


def load(target: Target, name: str, **parameters: str | bytes) -> Answer:
    asked = RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        field = "bytes_param" if isinstance(value, bytes) else "string_param"
        setattr(asked.parameters[key.replace("__", ":")], field, value)
    return target.call("RepositoryModelLoad", asked)


def unload(target: Target, name: str) -> Answer:
    return target.call("RepositoryModelUnload", RepositoryModelUnloadRequest(model_name=name))


def ask(target: Target, name: str = COMES_AND_GOES) -> Answer:
    made = request(name)
    add_raw(made, "INPUT", "FP32", np.arange(6, dtype="<f4").reshape(2, 3))
    return target.infer(made)


@pytest.fixture
def control(target: Target, server: Survey) -> Iterator[None]:
    """Skip where this server lets nobody load and unload; put the model back in the end."""
    if "model_repository" not in server.extensions:
        pytest.skip("model_repository: not announced")
    answer = load(target, COMES_AND_GOES)
    # Triton's word for a server that follows its repository by itself is UNAVAILABLE.
    if answer.code in {Code.PERMISSION_DENIED, Code.UNAVAILABLE}:
        pytest.skip(f"loading is not allowed here: {answer}")
    answer.must_be_ok()
    yield
    load(target, COMES_AND_GOES)
    eventually(lambda: target.is_ready(COMES_AND_GOES), f"{COMES_AND_GOES} is ready again")


def index(target: Target, *, ready: bool = False) -> list[Any]:
    return list(target.call("RepositoryIndex", RepositoryIndexRequest(ready=ready)).must_be_ok().models)


@case("repository/index", REPOSITORY)
def test_the_index_lists_what_is_served(target: Target, server: Survey) -> None:
    """Every ready model stands in the index, READY, with its version.

    Source: Triton, "Model Repository Extension", Index.
    """
    ready = {entry.name for entry in index(target) if entry.state == "READY" and entry.version}
    assert server.models <= ready


@case("repository/index-ready", REPOSITORY)
def test_the_index_lists_only_what_is_ready_on_request(target: Target, control: None) -> None:
    """With ready = true a model that was unloaded is left out.

    Source: Triton, "Model Repository Extension", Index, ready.
    """
    unload(target, COMES_AND_GOES).must_be_ok()
    eventually(lambda: not target.is_ready(COMES_AND_GOES), "the model is unloaded")
    found = index(target, ready=True)
    assert {entry.state for entry in found} == {"READY"}
    assert COMES_AND_GOES not in {entry.name for entry in found}
    assert COMES_AND_GOES in {entry.name for entry in index(target)}


@case("repository/unload", REPOSITORY)
def test_an_unloaded_model_answers_no_more(target: Target, control: None) -> None:
    """After Unload a model is not ready and refuses requests; the others still answer.

    Source: Triton, "Model Repository Extension", Unload.
    """
    ask(target).must_be_ok()
    unload(target, COMES_AND_GOES).must_be_ok()
    eventually(lambda: not target.is_ready(COMES_AND_GOES), "the model is unloaded")
    ask(target).must_be_refused(never=SILENCE | BEWILDERED)
    target.must_still_answer()


@case("repository/load", REPOSITORY)
def test_a_model_that_is_loaded_answers_when_load_does(target: Target, control: None) -> None:
    """When Load answers, the model is ready and answers requests.

    Source: Triton, "Model Repository Extension", Load: returns "once the model is loaded".
    """
    unload(target, COMES_AND_GOES).must_be_ok()
    eventually(lambda: not target.is_ready(COMES_AND_GOES), "the model is unloaded")
    load(target, COMES_AND_GOES).must_be_ok()
    assert target.is_ready(COMES_AND_GOES)
    ask(target).must_be_ok()


@case("repository/load-again", REPOSITORY)
def test_a_model_may_be_loaded_again_while_it_answers(target: Target, control: None) -> None:
    """Load of a model that is loaded is OK, and no request is lost meanwhile.

    Source: Triton, "Model Repository Extension", Load: "load or reload".
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, target) for _ in range(100)]
        load(target, COMES_AND_GOES).must_be_ok()
        codes = {future.result().code for future in asked}
    assert codes == {Code.OK}, f"REQUIRED OK throughout; answered {sorted(code.name for code in codes)}"


@case("repository/config-override", REPOSITORY, COMES_AND_GOES)
def test_a_configuration_may_come_with_the_load(target: Target, control: None) -> None:
    """Load with `config` serves the model with that configuration, until it is loaded without.

    Source: Triton, "Model Repository Extension", Load, parameter config.
    """
    asked = ModelConfigRequest(name=COMES_AND_GOES)
    config = target.call("ModelConfig", asked).must_be_ok().config
    config.parameters["conformance"].string_value = "yes"
    text = MessageToJson(config, preserving_proto_field_name=True)
    load(target, COMES_AND_GOES, config=text).must_be_ok()
    told = target.call("ModelConfig", asked).must_be_ok().config
    assert told.parameters["conformance"].string_value == "yes"
    ask(target).must_be_ok()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("{", id="no-json"),
        pytest.param('{"max_batch_size": "many"}', id="wrong-type"),
        pytest.param('{"no_such_field": 1}', id="unknown-field"),
    ],
)
@case("repository/config-wrong", REPOSITORY, COMES_AND_GOES)
def test_a_wrong_configuration_changes_nothing(target: Target, control: None, config: str) -> None:
    """Load with a configuration that is none is refused, and the model still answers.

    Source: Triton, "Model Repository Extension", Load, parameter config.
    """
    load(target, COMES_AND_GOES, config=config).must_be_refused(never=SILENCE)
    ask(target).must_be_ok()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("no_such_model", id="unknown"),
        pytest.param("", id="no-name"),
        pytest.param("../../etc", id="path"),
        pytest.param("/etc", id="absolute-path"),
    ],
)
@case("repository/load-unknown", REPOSITORY)
def test_what_is_not_there_cannot_be_loaded(target: Target, control: None, name: str) -> None:
    """Load of what is not in the repository is an error that says what it is; paths lead nowhere.

    Source: Triton, "Model Repository Extension", Load.
    """
    load(target, name).must_be_refused(never=SILENCE)
    target.must_still_answer()


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"file__../../../outside": b"x"}, id="path"),
        pytest.param({"file__/tmp/outside": b"x"}, id="absolute-path"),
        pytest.param({"file__1/model.onnx": b"not a model"}, id="garbage"),
    ],
)
@case("repository/files-wrong", ROBUSTNESS)
def test_files_that_come_with_a_load_stay_inside(
    target: Target, control: None, files: dict[str, bytes]
) -> None:
    """Load with file contents that lead outside, or are no model, is refused; what was served still is.

    Source: Triton, "Model Repository Extension", Load, parameter file:<version>/<name>.
    """
    load(target, COMES_AND_GOES, **files).must_be_refused(never=SILENCE)
    target.must_still_answer()


@case("repository/unload-unknown", REPOSITORY)
def test_unloading_what_is_not_there_is_no_disaster(target: Target, control: None) -> None:
    """Unload of an unknown model is NOT_FOUND or another error; ALLOWED: OK, since it is not loaded now.

    Source: Triton, "Model Repository Extension", Unload.
    """
    answer = unload(target, "no_such_model")
    assert answer.code not in SILENCE | BEWILDERED, f"REQUIRED an answer; answered {answer}"


@case("repository/unknown-repository", REPOSITORY)
def test_another_repository_is_no_disaster(target: Target) -> None:
    """Index of a repository by a name that is not there is an error, empty, or (ALLOWED) the whole index.

    Source: Triton, "Model Repository Extension", Index, repository_name.
    """
    answer = target.call("RepositoryIndex", RepositoryIndexRequest(repository_name="nowhere"))
    assert answer.code not in SILENCE | BEWILDERED, f"REQUIRED an answer; answered {answer}"
