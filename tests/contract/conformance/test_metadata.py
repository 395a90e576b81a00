"""What the server and its models say of themselves before they get tensors."""

import pytest
from oip.cases import BEWILDERED, MUST, SHOULD, SILENCE, Code, case, extension
from oip.models import MODELS, Model
from oip.survey import Survey
from oip.target import Target

from flyweight.protos.inference.grpc_service_pb2 import ModelConfigRequest, ModelMetadataRequest

BY_NAME = {model.name: model for model in MODELS}
DESCRIBED = [
    pytest.param(BY_NAME[name], id=name)
    for name in ("identity_fp32", "identity_bytes", "add_sub", "transpose")
]


@case("metadata/server", MUST)
def test_the_server_names_itself(server: Survey) -> None:
    """ServerMetadata gives a name and a version.

    Source: Open Inference Protocol, gRPC, "Server Metadata".
    """
    assert server.name
    assert server.version


@case("metadata/extensions", MUST)
def test_extensions_are_listed_once(server: Survey) -> None:
    """Every extension is listed by a name, and once.

    Source: Open Inference Protocol, gRPC, "Server Metadata", field extensions.
    """
    assert all(server.extensions)
    assert len(set(server.extensions)) == len(server.extensions)


@pytest.mark.parametrize("model", DESCRIBED)
@case("metadata/model", MUST)
def test_a_model_is_described(target: Target, model: Model) -> None:
    """ModelMetadata gives the name, and the datatype and shape of every input and output.

    A shape has the batch axis, if the model has one, and -1 where any length will do.
    Source: Open Inference Protocol, gRPC, "Model Metadata".
    """
    found = target.call("ModelMetadata", ModelMetadataRequest(name=model.name)).must_be_ok()
    assert found.name == model.name
    for said, known in ((found.inputs, model.inputs), (found.outputs, model.outputs)):
        assert {(t.name, t.datatype, tuple(t.shape)) for t in said} == {
            (tensor.name, tensor.datatype, model.shape(tensor)) for tensor in known
        }


@case("metadata/platform", MUST)
def test_a_model_has_a_platform(target: Target) -> None:
    """ModelMetadata names the framework.

    Source: Open Inference Protocol, gRPC, "Model Metadata", field platform.
    """
    assert target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok().platform


@case("metadata/versions", SHOULD)
def test_a_model_has_versions(target: Target) -> None:
    """ModelMetadata lists the versions that can be asked for.

    Source: Open Inference Protocol, "Model Metadata": versions are optional, and clients cannot guess them.
    """
    assert target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok().versions


@case("metadata/by-version", MUST)
def test_every_listed_version_can_be_asked_for(target: Target) -> None:
    """ModelMetadata by each of the versions that it lists answers OK.

    Source: Open Inference Protocol, gRPC, "Model Metadata", field version.
    """
    listed = target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok().versions
    for version in listed:
        asked = ModelMetadataRequest(name="add_sub", version=version)
        assert target.call("ModelMetadata", asked).must_be_ok().name == "add_sub"


UNKNOWN = [
    pytest.param("no_such_model", "", id="unknown-model"),
    pytest.param("add_sub", "99", id="unknown-version"),
    pytest.param("", "", id="no-name"),
    pytest.param("../add_sub", "", id="path-in-name"),
    pytest.param("add_sub", "../1", id="path-in-version"),
]


@pytest.mark.parametrize(("name", "version"), UNKNOWN)
@case("metadata/refused", MUST)
def test_an_unknown_model_is_refused(target: Target, name: str, version: str) -> None:
    """ModelMetadata of what is not there is an error.

    Source: Open Inference Protocol, gRPC, "Model Metadata": the status tells of errors.
    """
    target.call("ModelMetadata", ModelMetadataRequest(name=name, version=version)).must_be_refused()


@pytest.mark.parametrize(("name", "version"), UNKNOWN)
@case("metadata/refused-code", SHOULD)
def test_an_unknown_model_is_told_by_its_code(target: Target, name: str, version: str) -> None:
    """The status is NOT_FOUND; ALLOWED: INVALID_ARGUMENT where the name or version is none at all.

    Source: grpc/grpc, doc/statuscodes.md.
    """
    answer = target.call("ModelMetadata", ModelMetadataRequest(name=name, version=version))
    allowed = (
        () if (name, version) in {("no_such_model", ""), ("add_sub", "99")} else (Code.INVALID_ARGUMENT,)
    )
    answer.must_be(Code.NOT_FOUND, *allowed)


@pytest.mark.parametrize("model", DESCRIBED)
@case("configuration/agrees-with-metadata", extension("model_configuration"))
def test_the_configuration_agrees_with_the_metadata(target: Target, model: Model) -> None:
    """ModelConfig has the model's name, its max_batch_size, and dims without the batch axis.

    Source: Triton, protocol extensions, "Model Configuration Extension"; message ModelConfig.
    """
    config = target.call("ModelConfig", ModelConfigRequest(name=model.name)).must_be_ok().config
    assert (config.name, config.max_batch_size) == (model.name, model.max_batch_size)
    for said, known in ((config.input, model.inputs), (config.output, model.outputs)):
        assert {(t.name, tuple(t.dims)) for t in said} == {(tensor.name, tensor.dims) for tensor in known}


@case("configuration/types", extension("model_configuration"))
def test_the_configuration_names_datatypes_in_its_own_words(target: Target) -> None:
    """ModelConfig says TYPE_STRING for BYTES and TYPE_FP32 for FP32.

    Source: Triton, model_config.proto, enum DataType: TYPE_FP32 = 11, TYPE_STRING = 13.
    """
    for name, number in (("identity_bytes", 13), ("identity_fp32", 11)):
        config = target.call("ModelConfig", ModelConfigRequest(name=name)).must_be_ok().config
        assert [t.data_type for t in config.input] == [number]


@pytest.mark.parametrize(("name", "version"), UNKNOWN[:3])
@case("configuration/refused", extension("model_configuration"))
def test_the_configuration_of_nobody_is_refused(target: Target, name: str, version: str) -> None:
    """ModelConfig of what is not there is an error, and one that says what it is.

    Source: Triton, protocol extensions, "Model Configuration Extension"; grpc/grpc, doc/statuscodes.md.
    """
    answer = target.call("ModelConfig", ModelConfigRequest(name=name, version=version))
    answer.must_be_refused(never=SILENCE | BEWILDERED)
