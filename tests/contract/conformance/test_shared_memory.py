"""System shared memory: tensors that lie beside the request and not in it. CUDA's is only asked about.

Source of all: Triton, protocol extensions, "System-Shared-Memory Extension".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import pytest
from oip.cases import BEWILDERED, SILENCE, case, extension
from oip.requests import A, B, add_sub_request, put_parameters, request
from oip.target import Answer, Target

from flyweight.protos.inference.grpc_service_pb2 import (
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
)

SHARED = extension("system_shared_memory")
PAGE = 4096
SIZE = 2 * PAGE


@pytest.fixture
def region(target: Target) -> Iterator[shared_memory.SharedMemory]:
    """Give a region of two pages that begin with A and B; forget what was registered in the end."""
    if not target.is_local:
        pytest.skip("the server is on another machine")
    made = shared_memory.SharedMemory(create=True, size=SIZE, name=f"oip_{os.getpid()}")
    try:
        for start in (0, PAGE):
            memory_of(made)[start : start + 32] = A.tobytes() + B.tobytes()
        yield made
        unregister(target)
    finally:
        made.close()
        made.unlink()


@contextmanager
def another_region() -> Iterator[shared_memory.SharedMemory]:
    made = shared_memory.SharedMemory(create=True, size=SIZE, name=f"oip_{os.getpid()}_other")
    try:
        yield made
    finally:
        made.close()
        made.unlink()


def memory_of(region: shared_memory.SharedMemory) -> memoryview:
    """Return the region's bytes."""
    assert region.buf is not None
    return region.buf


def key_of(region: shared_memory.SharedMemory) -> str:
    """Return the region's key as shm_open(3) wants it."""
    return f"/{region.name.lstrip('/')}"


def register(target: Target, key: str, name: str = "r", offset: int = 0, size: int = SIZE) -> Answer:
    asked = SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=size)
    return target.call("SystemSharedMemoryRegister", asked)


def unregister(target: Target, name: str = "") -> Answer:
    return target.call("SystemSharedMemoryUnregister", SystemSharedMemoryUnregisterRequest(name=name))


def status(target: Target, name: str = "") -> Answer:
    return target.call("SystemSharedMemoryStatus", SystemSharedMemoryStatusRequest(name=name))


def regional(offset: int = 16, size: int = 16, name: str = "r") -> Any:
    """Return a request whose first input is sent, and whose second lies in the region."""
    made = add_sub_request()
    del made.raw_input_contents[1:]
    where: dict[str, Any] = {"shared_memory_region": name, "shared_memory_byte_size": size}
    put_parameters(made.inputs[1].parameters, where | ({"shared_memory_offset": offset} if offset else {}))
    return made


@contextmanager
def registered(target: Target, region: shared_memory.SharedMemory, **where: int) -> Iterator[None]:
    register(target, key_of(region), **where).must_be_ok()  # type: ignore[arg-type]
    yield


@case("shared-memory/status", SHARED)
def test_registered_regions_are_listed(target: Target, region: shared_memory.SharedMemory) -> None:
    """Status lists a region with its key, offset and size, alone and among all; and no more afterwards.

    Source: Triton, "System-Shared-Memory Extension", Status.
    """
    with registered(target, region, offset=PAGE, size=64):
        for name in ("r", ""):
            found = status(target, name).must_be_ok().regions["r"]
            assert (found.key.lstrip("/"), found.offset, found.byte_size) == (
                region.name.lstrip("/"),
                PAGE,
                64,
            )
    unregister(target, "r").must_be_ok()
    assert dict(status(target).must_be_ok().regions) == {}


@case("shared-memory/input", SHARED)
def test_an_input_is_read_from_a_region(target: Target, region: shared_memory.SharedMemory) -> None:
    """An input with shared_memory_region, offset and byte_size is read there.

    Source: Triton, "System-Shared-Memory Extension", shared_memory_region, shared_memory_offset.
    """
    with registered(target, region):
        tensors = target.infer(regional()).tensors()
    assert (tensors["OUTPUT0"][1] == A + B).all()


@pytest.mark.parametrize("offset", [pytest.param(PAGE, id="page"), pytest.param(PAGE + 8, id="any")])
@case("shared-memory/registered-offset", SHARED)
def test_offsets_add_up(target: Target, region: shared_memory.SharedMemory, offset: int) -> None:
    """An input's offset counts from where the registration begins, at a page or anywhere.

    Source: Triton, "System-Shared-Memory Extension", Register, offset.
    """
    with registered(target, region, offset=offset, size=64):
        tensors = target.infer(regional(offset=PAGE + 16 - offset)).tensors()
    assert (tensors["OUTPUT0"][1] == A + B).all()


@case("shared-memory/all-inputs", SHARED)
def test_all_tensors_may_lie_in_regions(target: Target, region: shared_memory.SharedMemory) -> None:
    """With all inputs and outputs in the region nothing travels: the outputs are written there.

    Source: Triton, "System-Shared-Memory Extension": requested outputs with shared_memory_region.
    """
    asked = request("add_sub", outputs=["OUTPUT0", "OUTPUT1"])
    inputs = [asked.inputs.add(name=name, datatype="FP32", shape=[1, 4]) for name in ("INPUT0", "INPUT1")]
    for index, where in enumerate([*inputs, *asked.outputs]):
        place: dict[str, str | int] = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
        put_parameters(where.parameters, place | {"shared_memory_offset": 16 * index})
    with registered(target, region):
        response = target.infer(asked).must_be_ok()
    found = np.frombuffer(bytes(memory_of(region)[32:64]), "<f4").reshape(2, 1, 4)
    assert (found[0] == A + B).all(), "REQUIRED the sum in the region"
    assert (found[1] == A - B).all(), "REQUIRED the difference in the region"
    assert {output.name for output in response.outputs} == {"OUTPUT0", "OUTPUT1"}
    assert b"".join(response.raw_output_contents) == b""


@case("shared-memory/output-too-small", SHARED)
def test_an_output_that_does_not_fit_is_refused(target: Target, region: shared_memory.SharedMemory) -> None:
    """An output region smaller than the output is an error, and nothing beyond it is written.

    Source: Triton, "System-Shared-Memory Extension", shared_memory_byte_size.
    """
    asked = add_sub_request(outputs=["OUTPUT0"])
    place: dict[str, str | int] = {
        "shared_memory_region": "r",
        "shared_memory_byte_size": 8,
        "shared_memory_offset": 64,
    }
    put_parameters(asked.outputs[0].parameters, place)
    with registered(target, region):
        target.infer(asked).must_be_refused(never=SILENCE)
    assert bytes(memory_of(region)[72:128]) == bytes(56), "REQUIRED nothing written beyond the size"


@case("shared-memory/unregister-all", SHARED)
def test_an_empty_name_unregisters_all(target: Target, region: shared_memory.SharedMemory) -> None:
    """Unregister without a name forgets every region; requests that name them are refused then.

    Source: Triton, "System-Shared-Memory Extension", Unregister.
    """
    with another_region() as other:
        register(target, key_of(region)).must_be_ok()
        register(target, key_of(other), name="s").must_be_ok()
    unregister(target).must_be_ok()
    assert dict(status(target).must_be_ok().regions) == {}
    target.infer(regional()).must_be_refused(never=SILENCE | BEWILDERED)


@case("shared-memory/two-names", SHARED)
def test_a_region_may_have_two_names(target: Target, region: shared_memory.SharedMemory) -> None:
    """Two parts of one region may be registered under two names.

    Source: Triton, "System-Shared-Memory Extension", Register: name, key and offset are its own each time.
    """
    register(target, key_of(region), size=PAGE).must_be_ok()
    register(target, key_of(region), name="s", offset=PAGE, size=PAGE).must_be_ok()
    assert set(status(target).must_be_ok().regions) == {"r", "s"}


@case("shared-memory/twice", SHARED)
def test_a_name_that_is_taken_is_refused(target: Target, region: shared_memory.SharedMemory) -> None:
    """A second registration of one name is an error, and the first one stays.

    Source: Triton, "System-Shared-Memory Extension", Register; its server answers ALREADY_EXISTS.
    """
    with registered(target, region):
        register(target, key_of(region), size=64).must_be_refused(never=SILENCE | BEWILDERED)
        assert status(target, "r").must_be_ok().regions["r"].byte_size == SIZE


MISTAKES = [
    pytest.param("/oip_no_such_region", 0, SIZE, id="unknown-key"),
    pytest.param("/../../etc/passwd", 0, 16, id="path"),
    pytest.param("/etc/passwd", 0, 16, id="absolute-path"),
    pytest.param("", 0, 16, id="no-key"),
    pytest.param(None, 0, SIZE * 1024, id="larger-than-it-is"),
    pytest.param(None, SIZE * 1024, 16, id="offset-beyond-its-end"),
    pytest.param(None, 2**64 - 8, 16, id="offset-overflow"),
    pytest.param(None, 0, 2**64 - 1, id="size-overflow"),
]


@pytest.mark.parametrize(("key", "offset", "size"), MISTAKES)
@case("shared-memory/register-wrong", SHARED)
def test_what_is_no_region_cannot_be_registered(
    target: Target, region: shared_memory.SharedMemory, key: str | None, offset: int, size: int
) -> None:
    """A registration of what is not there, or beyond what is there, is an error, and the server lives on.

    Source: Triton, "System-Shared-Memory Extension", Register.
    """
    named = key_of(region) if key is None else key
    register(target, named, offset=offset, size=size).must_be_refused(never=SILENCE)
    target.must_still_answer()


@pytest.mark.parametrize(
    ("offset", "size", "name"),
    [
        pytest.param(0, 16, "nobody", id="unknown-region"),
        pytest.param(0, 12, "r", id="size-too-small"),
        pytest.param(0, 20, "r", id="size-too-large"),
        pytest.param(SIZE - 8, 16, "r", id="beyond-the-end"),
        pytest.param(-16, 16, "r", id="negative-offset"),
        pytest.param(2**63 - 8, 16, "r", id="offset-overflow"),
        pytest.param(0, -16, "r", id="negative-size"),
        pytest.param(0, 2**62, "r", id="huge-size"),
    ],
)
@case("shared-memory/input-wrong", SHARED)
def test_an_input_beyond_its_region_is_refused(
    target: Target, region: shared_memory.SharedMemory, offset: int, size: int, name: str
) -> None:
    """An input that names a region that is not there, or reaches beyond it, is refused; the server lives on.

    Source: Triton, "System-Shared-Memory Extension", shared_memory_offset, shared_memory_byte_size.
    """
    with registered(target, region):
        target.infer(regional(offset, size, name)).must_be_refused(never=SILENCE)
    target.must_still_answer()


@case("shared-memory/status-unknown", SHARED)
def test_the_status_of_an_unknown_region_is_an_error(target: Target) -> None:
    """Status of a region that is not registered is an error that says so.

    Source: Triton, "System-Shared-Memory Extension", Status; grpc/grpc, doc/statuscodes.md.
    """
    status(target, "nobody").must_be_refused(never=SILENCE | BEWILDERED)


@case("shared-memory/shrunk", SHARED)
def test_a_region_that_shrank_is_survived(target: Target, region: shared_memory.SharedMemory) -> None:
    """A region that its owner cuts after the registration must not kill the server (SIGBUS).

    Source: none in the protocol; mmap(2).
    """
    with registered(target, region):
        os.truncate(f"/dev/shm/{region.name.lstrip('/')}", 0)
        answer = target.infer(regional())
        os.truncate(f"/dev/shm/{region.name.lstrip('/')}", SIZE)
    assert answer.code not in SILENCE, f"REQUIRED an answer; answered {answer}"
    # Several times: what dies of a signal in a process of its own takes the others along a little later.
    for _ in range(20):
        target.must_still_answer()
