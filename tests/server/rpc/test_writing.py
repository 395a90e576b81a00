from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import decode_tensors
from flyweight.server.errors import InvalidRequest, UnknownRegion, Unsupported
from flyweight.server.rpc.regions import Regions
from flyweight.server.rpc.writing import wanted_outputs, write_outputs

Y, Z = np.array([[1, 3, 2]], np.float32), np.array([[7]], np.int64)


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    (tmp_path / "object").write_bytes(bytes(32))
    found = Regions(folder=tmp_path)
    found.register("region", "object", 0, 32)
    yield found
    found.close()


def wanting(name: str, **parameters: int | str) -> ModelInferRequest:
    request = ModelInferRequest()
    output = request.outputs.add(name=name)
    for key, value in parameters.items():
        if isinstance(value, str):
            output.parameters[key].string_param = value
        else:
            output.parameters[key].int64_param = value
    return request


def in_region(size: int = 12, offset: int = 4) -> ModelInferRequest:
    return wanting(
        "y", shared_memory_region="region", shared_memory_byte_size=size, shared_memory_offset=offset
    )


def written(request: ModelInferRequest, **options: Any) -> ModelInferResponse:
    response = ModelInferResponse()
    write_outputs(response, request, {"y": Y, "z": Z}, **options)
    return response


def test_outputs_are_sent_raw_and_in_order() -> None:
    response = written(ModelInferRequest())
    arrays = decode_tensors(response.outputs, response.raw_output_contents)
    assert {name: array.tolist() for name, array in arrays.items()} == {"y": [[1, 3, 2]], "z": [[7]]}


def test_one_output_is_classified_and_the_others_are_as_they_are() -> None:
    response = written(wanting("y", classification=2), labels={"y": ("a", "b")})
    arrays = decode_tensors(response.outputs, response.raw_output_contents)
    assert arrays["y"].tolist() == [[b"3.0:1:b", b"2.0:2"]]
    assert arrays["z"].tolist() == [[7]]


def test_no_classes_means_the_output_as_it_is() -> None:
    assert written(wanting("y", classification=0)).outputs[0].datatype == "FP32"


def test_an_output_goes_to_shared_memory_and_leaves_an_empty_content(regions: Regions) -> None:
    response = written(in_region(), regions=regions)
    output = response.outputs[0]
    assert regions.get("region").read(4, 12) == Y.tobytes()
    assert (output.datatype, list(output.shape)) == ("FP32", [1, 3])
    assert output.parameters["shared_memory_byte_size"].int64_param == 12
    # Clients look the others up by their place.
    assert list(response.raw_output_contents) == [b"", Z.tobytes()]


def test_classes_go_to_shared_memory_too(regions: Regions) -> None:
    request = in_region(20)
    request.outputs[0].parameters["classification"].int64_param = 1
    assert written(request, regions=regions).outputs[0].datatype == "BYTES"
    assert regions.get("region").read(4, 9) == b"\x05\0\0\x003.0:1"


def test_a_place_too_small_is_told_the_bytes_needed(regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match=r"'y' takes 12 bytes, and 11 were given.*at least 12"):
        written(in_region(11), regions=regions)


def test_the_outputs_wanted_are_those_named() -> None:
    request = wanting("z")
    request.outputs.add(name="y")
    assert wanted_outputs(request) == ["z", "y"]
    assert wanted_outputs(ModelInferRequest()) == []


def test_nothing_is_asked_for_twice() -> None:
    request = wanting("z")
    request.outputs.add(name="z")
    with pytest.raises(InvalidRequest, match="'z' is asked for twice"):
        wanted_outputs(request)


def test_what_would_fail_after_the_run_is_refused_before_it(regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match="'region' has 32 bytes, and 12 from 24 on"):
        wanted_outputs(in_region(12, 24), regions)
    regions.unregister()
    with pytest.raises(UnknownRegion, match="'region'"):
        wanted_outputs(in_region(), regions)
    with pytest.raises(Unsupported, match=r"tensor 'y'.*--shared-memory"):
        wanted_outputs(in_region())


@pytest.mark.parametrize("count", [-1, "3"])
def test_a_number_of_classes_is_a_whole_number(count: int | str) -> None:
    with pytest.raises(InvalidRequest, match="'y' has a parameter 'classification' that is not"):
        wanted_outputs(wanting("y", classification=count))
