"""What gRPC itself asks of a server: names, metadata, compression, lengths, bodies that are no message."""

import gzip
from typing import Any

import grpc
import pytest
from oip import http2
from oip.cases import MUST, ROBUSTNESS, SHOULD, Code, case
from oip.http2 import message, request_headers, unary, wire
from oip.requests import A, B, add_sub_request
from oip.target import PATIENCE_SECONDS, Answer, Target, failure

GOOD = add_sub_request().SerializeToString()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/inference.GRPCInferenceService/NoSuchMethod", id="method"),
        pytest.param("/no.such.Service/ModelInfer", id="service"),
    ],
)
@case("wire/unknown-method", MUST)
def test_an_unknown_method_is_unimplemented(target: Target, path: str) -> None:
    """A method or a service that is not there is UNIMPLEMENTED.

    Source: grpc/grpc, doc/statuscodes.md.
    """
    try:
        target.channel.unary_unary(path)(b"", timeout=PATIENCE_SECONDS)
    except grpc.RpcError as error:
        failure(error).must_be(Code.UNIMPLEMENTED)
    else:
        pytest.fail("REQUIRED UNIMPLEMENTED; answered OK", pytrace=False)


@pytest.mark.parametrize(
    "algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"]
)
@case("wire/compressed-request", SHOULD)
def test_a_compressed_request_is_read(target: Target, algorithm: Any) -> None:
    """A request compressed with gzip or deflate is answered. ALLOWED: UNIMPLEMENTED, when the server says so.

    Source: grpc/grpc, doc/compression.md.
    """
    answer = target.infer(add_sub_request(), compression=algorithm)
    answer.must_be(Code.OK, Code.UNIMPLEMENTED)
    if answer.code is Code.OK:
        assert (answer.tensors()["OUTPUT0"][1] == A + B).all()


@case("wire/unknown-compression", SHOULD)
def test_an_unknown_compression_is_unimplemented(target: Target) -> None:
    """A message compressed by an algorithm that the server does not know is UNIMPLEMENTED.

    Source: grpc/grpc, doc/compression.md, "Compression Method Asymmetry Between Peers".
    """
    headers = request_headers("ModelInfer", (b"grpc-encoding", b"zzz"))
    must_end_with(target, unary(1, headers, message(GOOD, compressed=1)), Code.UNIMPLEMENTED)


@case("wire/flag-without-compression", MUST)
def test_a_compressed_flag_without_an_encoding_is_an_error(target: Target) -> None:
    """A message flagged as compressed without grpc-encoding is INTERNAL; ALLOWED: any other error.

    Source: grpc/grpc, doc/compression.md.
    """
    must_end_badly(target, unary(1, request_headers(), message(GOOD, compressed=1)))


@pytest.mark.parametrize(
    "data",
    [pytest.param(b"\x1f\x8b garbage", id="garbage"), pytest.param(gzip.compress(GOOD)[:-9], id="cut")],
)
@case("wire/broken-compression", ROBUSTNESS)
def test_broken_compressed_data_is_an_error(target: Target, data: bytes) -> None:
    """A message that does not decompress is refused, by any code.

    Source: none in the protocol.
    """
    headers = request_headers("ModelInfer", (b"grpc-encoding", b"gzip"))
    must_end_badly(target, unary(1, headers, message(data, compressed=1)))
    target.must_still_answer()


@case("wire/gzip-bomb", ROBUSTNESS)
def test_a_gzip_bomb_is_survived(target: Target) -> None:
    """128 MiB of zeros in 128 KiB do not harm others; the answer to it is free, but there is one.

    Source: none in the protocol; a limit of message size must hold after decompression.
    """
    bomb = gzip.compress(bytes(128 << 20), compresslevel=1)
    headers = request_headers("ModelInfer", (b"grpc-encoding", b"gzip"))
    with wire(target) as connection:
        connection.hello().send(unary(1, headers, message(bomb, compressed=1)))
        assert connection.until_end_of(1), "REQUIRED an end of the stream"
    target.must_still_answer()


@case("wire/metadata", MUST)
def test_foreign_metadata_does_no_harm(target: Target) -> None:
    """Metadata that the server has no use for is ignored: trace contexts, binary values, repeated names.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md, Custom-Metadata.
    """
    metadata = (
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-request-id", "1"),
        ("x-request-id", "2"),
        ("something-bin", bytes(range(256))),
        ("empty", ""),
    )
    assert (target.infer(add_sub_request(), metadata=metadata).tensors()["OUTPUT0"][1] == A + B).all()


@case("wire/metadata-upper-case", ROBUSTNESS)
def test_upper_case_header_names_are_refused_or_ignored(target: Target) -> None:
    """A header name in upper case is malformed: the stream or the connection ends; ALLOWED: it is ignored.

    Source: RFC 9113, section 8.2.1.
    """
    with wire(target) as connection:
        connection.hello().send(unary(1, request_headers("ModelInfer", (b"X-Upper", b"1")), message(GOOD)))
        assert connection.until_end_of(1), "REQUIRED an answer or an end"
    target.must_still_answer()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff\xff\xff\xff", id="garbage"),
        pytest.param(GOOD[:-3], id="cut"),
        pytest.param(b"\x0a\x02\xff\xfe", id="name-not-utf8"),
        pytest.param(b"\x2b" * 1000, id="nested-groups"),
    ],
)
@case("wire/no-message", MUST)
def test_a_body_that_is_no_message_is_refused(target: Target, body: bytes) -> None:
    """Bytes that are no ModelInferRequest are INTERNAL or INVALID_ARGUMENT.

    Source: grpc/grpc, doc/statuscodes.md: "Error parsing request proto" is INTERNAL.
    """
    target.infer(body).must_be(Code.INTERNAL, Code.INVALID_ARGUMENT)


@case("wire/empty-message", MUST)
def test_an_empty_message_is_a_message(target: Target) -> None:
    """No bytes are a ModelInferRequest without anything, and refused as one that names no model.

    Source: Protocol Buffers, encoding; grpc/grpc, doc/statuscodes.md.
    """
    target.infer(b"").must_be(Code.INVALID_ARGUMENT, Code.NOT_FOUND)


@case("wire/unknown-fields", MUST)
def test_unknown_fields_do_no_harm(target: Target) -> None:
    """Fields of a later version of the protocol are skipped.

    Source: Protocol Buffers, "Unknown Fields".
    """
    later = b"\xfa\x3e\x03abc" + b"\xf8\x3f\x01"
    assert (target.infer(GOOD + later).tensors()["OUTPUT0"][1] == A + B).all()


@case("wire/no-body", ROBUSTNESS)
def test_a_unary_call_without_a_message_is_an_error(target: Target) -> None:
    """A request that ends before its message is refused, by any code.

    Source: grpc/grpc, doc/statuscodes.md: UNIMPLEMENTED or INTERNAL, cardinality violation.
    """
    must_end_badly(target, http2.frame(http2.HEADERS, 5, 1, request_headers()))


@case("wire/two-messages", ROBUSTNESS)
def test_two_messages_of_a_unary_call_are_no_disaster(target: Target) -> None:
    """A second message of a unary call is an error; ALLOWED: it is ignored.

    Source: grpc/grpc, doc/statuscodes.md, cardinality violation.
    """
    with wire(target) as connection:
        connection.hello().send(unary(1, request_headers(), message(GOOD) * 2))
        assert connection.until_end_of(1), "REQUIRED an answer or an end"
    target.must_still_answer()


@case("wire/content-type", SHOULD)
def test_another_content_type_is_refused(target: Target) -> None:
    """A request that is no gRPC gets HTTP 415 or a reset, and no response message.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md: content-type not beginning with "application/grpc".
    """
    headers = request_headers().replace(
        http2.literal(b"content-type", b"application/grpc"), http2.literal(b"content-type", b"text/html")
    )
    must_end_badly(target, unary(1, headers, message(GOOD)))


def must_end_with(target: Target, request: bytes, code: grpc.StatusCode) -> None:
    with wire(target) as connection:
        connection.hello().send(request)
        frames = connection.until_end_of(1)
    status = http2.status_in(frames)
    if status is None and frames and frames[-1].kind == http2.HEADERS:
        pytest.skip("the server compresses its headers; the status could not be read")
    assert status is not None, "REQUIRED a status; the stream had none"
    found = next(each for each in Code if each.value[0] == status)
    Answer(found).must_be(code)


def must_end_badly(target: Target, request: bytes) -> None:
    """Fail unless the stream ends, and without a response message."""
    with wire(target) as connection:
        connection.hello().send(request)
        frames = connection.until_end_of(1)
    assert frames, "REQUIRED an end of the stream; the connection just went silent"
    assert not any(each.kind == http2.DATA and each.payload for each in frames), (
        "REQUIRED an error; answered OK"
    )
