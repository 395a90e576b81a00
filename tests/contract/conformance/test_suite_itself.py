"""The suite's own parts do what the cases rely on; no server is asked."""

import json

import numpy as np
import pytest
from compare import replaced
from oip.cases import CASE
from oip.encoding import DATATYPES, FIELDS, outputs_of, put_typed, raw, same_bits, samples
from oip.http2 import DATA, END_STREAM, HEADERS, Frame, frame, integer, literal, message, status_in
from oip.models import MODELS, config_text
from oip.report import Report, Result
from oip.tables import one_server, shortfalls, summary

from flyweight.protos.inference.grpc_service_pb2 import ModelInferResponse


def test_hpack_integers_are_those_of_the_rfc() -> None:
    """RFC 7541, appendix C.1: 10 and 1337 with a prefix of five bits, 42 with one of eight."""
    assert integer(10, 5) == b"\x0a"
    assert integer(1337, 5) == b"\x1f\x9a\x0a"
    assert integer(42, 8) == b"\x2a"


def test_a_literal_header_is_that_of_the_rfc() -> None:
    """RFC 7541, appendix C.2.2, but for its name, which is indexed there."""
    assert literal(b":path", b"/sample/path") == b"\x00\x05:path\x0c/sample/path"


def test_frames_and_messages_are_laid_out_as_they_should_be() -> None:
    """RFC 9113, section 4.1: length, type, flags, stream; gRPC: flag, length."""
    assert frame(DATA, END_STREAM, 3, b"ab") == b"\0\0\2\0\1\0\0\0\3ab"
    assert message(b"ab") == b"\0\0\0\0\2ab"


def test_a_plain_status_is_read() -> None:
    trailers = Frame(HEADERS, 5, 1, b"\x40\x0bgrpc-status\x0212")
    assert status_in([trailers]) == 12
    assert status_in([Frame(DATA, 0, 1, b"\x0bgrpc-status\x0212")]) is None


@pytest.mark.parametrize("datatype", DATATYPES)
def test_samples_survive_both_encodings(datatype: str) -> None:
    array = samples(datatype)
    response = ModelInferResponse(raw_output_contents=[raw(datatype, array)])
    response.outputs.add(name="x", datatype=datatype, shape=array.shape)
    assert same_bits(outputs_of(response)["x"][1], array)
    if datatype in FIELDS:
        typed = ModelInferResponse()
        put_typed(typed.outputs.add(name="x", datatype=datatype, shape=array.shape).contents, datatype, array)
        assert same_bits(outputs_of(typed)["x"][1], array)


def test_same_bits_tells_signed_zeros_apart() -> None:
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert same_bits(np.array([np.nan]), np.array([np.nan]))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_a_configuration_that_parses(model: object) -> None:
    from google.protobuf import text_format

    from flyweight.protos.inference.model_config_pb2 import ModelConfig

    for backend in ("onnxruntime", "python"):
        config = text_format.Parse(config_text(model, backend), ModelConfig())  # type: ignore[arg-type]
        assert config.backend == backend


def report_of(column: str, **outcomes: str) -> dict[str, object]:
    made = Report(column)
    made.results = {
        key: Result(key.replace("__", "/"), "MUST", outcome, "", "", "") for key, outcome in outcomes.items()
    }
    found = made.as_json()
    assert json.loads(json.dumps(found)) == found
    return found


def test_tables_count_what_was_run() -> None:
    ours = report_of("ours", infer__a="passed", infer__b="skipped")
    theirs = report_of("theirs", infer__a="failed", infer__b="passed")
    text = summary([ours, theirs])
    assert "| MUST | 1/1 | **1/2** |" in text
    assert [line for line in shortfalls([ours, theirs]).splitlines() if "infer/" in line] == [
        "| `infer/a` | MUST | \u2713 | **\u2717** |"
    ]
    assert "infer/a" in one_server(theirs)


def test_a_document_keeps_what_is_around_the_tables() -> None:
    document = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"
    assert replaced(document, "new") == ("before\n<!-- results -->\n\nnew\n<!-- end of results -->\nafter\n")
    with pytest.raises(SystemExit, match="marks"):
        replaced("nothing", "new")


def test_every_case_says_what_it_requires_and_where_that_stands(request: pytest.FixtureRequest) -> None:
    """An id may be used once; a case without a statement or a source is nobody's contract."""
    cases = [item.stash.get(CASE, None) for item in request.session.items]
    found = [case for case in cases if case is not None]
    assert len({case.identity for case in found}) == len(found)
    assert [case.identity for case in found if not (case.statement and case.source)] == []
