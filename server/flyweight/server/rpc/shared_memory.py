"""System shared memory: regions that callers on this machine register, and the RPCs that do it.

A region is read with pread into memory of ours and written with pwrite, never mapped. The file belongs to the
caller, who may cut it short or change it at any moment: reading a mapping past the end of its file is a
SIGBUS, which ends the whole server, and text whose lengths change between check and use is an overflow.
One copy, at the speed of memory, buys that neither can happen.

Source: Triton's shared memory extension, "System Shared Memory"; shm_open(3) for what a key is.
"""

from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import (
    CudaSharedMemoryUnregisterRequest,
    CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse,
)
from flyweight.server.errors import Unsupported
from flyweight.server.rpc.call import Call, Handler
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.regions import Regions

OFF_SENTENCE: Final = (
    "This server does not use system shared memory; send tensors in the request, or have the server started "
    "with --shared-memory."
)
_CUDA_SENTENCE: Final = (
    "flyweight runs models on CPUs and has no CUDA shared memory; use system shared memory, or send tensors "
    "in the request."
)


class SystemSharedMemory:
    """Answers the RPCs about regions; with no `regions`, by saying that they are switched off."""

    def __init__(self, regions: Regions | None) -> None:
        self._regions = regions

    def status(self, body: bytes, _call: Call) -> bytes:
        """Tell one region, or all.

        Raises:
            UnknownRegion: it is not registered.
            Unsupported: shared memory is switched off; so for all three.
        """
        request = parse(SystemSharedMemoryStatusRequest, body)
        response = SystemSharedMemoryStatusResponse()
        for region in self._required().listed(request.name):
            response.regions[region.name].CopyFrom(
                SystemSharedMemoryStatusResponse.RegionStatus(
                    name=region.name, key=region.key, offset=region.offset, byte_size=region.size_bytes
                )
            )
        return response.SerializeToString()

    def register(self, body: bytes, _call: Call) -> bytes:
        """Make a region known.

        Raises:
            InvalidRequest: the key is none, or the region does not lie in what it names.
            RegionExists: the name is taken.
            LimitReached: there are as many regions as the server keeps.
        """
        request = parse(SystemSharedMemoryRegisterRequest, body)
        self._required().register(request.name, request.key, request.offset, request.byte_size)
        return SystemSharedMemoryRegisterResponse().SerializeToString()

    def unregister(self, body: bytes, _call: Call) -> bytes:
        """Forget one region or all; as with Triton, one that is not there is none the less forgotten."""
        request = parse(SystemSharedMemoryUnregisterRequest, body)
        self._required().unregister(request.name)
        return SystemSharedMemoryUnregisterResponse().SerializeToString()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of system and CUDA shared memory by RPC name."""
        handlers: dict[str, Handler] = {
            "SystemSharedMemoryStatus": self.status,
            "SystemSharedMemoryRegister": self.register,
            "SystemSharedMemoryUnregister": self.unregister,
        }
        return handlers | {
            "CudaSharedMemoryStatus": _refuse_cuda,
            "CudaSharedMemoryRegister": _refuse_cuda,
            "CudaSharedMemoryUnregister": _unregister_cuda,
        }

    def _required(self) -> Regions:
        if self._regions is None:
            raise Unsupported(OFF_SENTENCE)
        return self._regions


def _refuse_cuda(_body: bytes, _call: Call) -> bytes:
    raise Unsupported(_CUDA_SENTENCE)


def _unregister_cuda(body: bytes, call: Call) -> bytes:
    """Forget all regions, of which there are none; one by its name is refused.

    Stock clients forget both kinds before they begin and when they end, also those that use neither: Triton's
    examples of shared memory, and perf_analyzer with --shared-memory system.
    """
    if parse(CudaSharedMemoryUnregisterRequest, body).name:
        return _refuse_cuda(body, call)
    return CudaSharedMemoryUnregisterResponse().SerializeToString()
