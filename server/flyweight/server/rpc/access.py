"""Who may call which RPC: one closed table, and the check that every call passes before its handler.

Open to everybody, also where callers are known: health and the protocol's own probes. A kubelet and a load
balancer have no credentials to send, and what they learn is a yes or no.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from flyweight.server.errors import NotAllowed, Unauthenticated
from flyweight.server.rpc.call import Call, Peer
from flyweight.server.security.callers import ANYBODY, Caller, Callers, Role, WatchedCallers
from flyweight.server.security.document import read_callers
from flyweight.server.settings import ServerSettings

_INFERENCE: Final = "/inference.GRPCInferenceService/"
_CONTROL: Final = "/flyweight.control.v1.ControlService/"

_OPEN: Final[frozenset[Role]] = frozenset()
# What there is, and what its tensors are called: who infers needs it as much as who watches.
_KNOWN: Final = frozenset(Role)
_INFER: Final = frozenset({Role.INFER})
_OBSERVE: Final = frozenset({Role.OBSERVE})
_STEER: Final = frozenset({Role.CONTROL})

# One role of those in its row lets a caller in; an empty row, everybody.
_TABLE: Final[Mapping[str, frozenset[Role]]] = MappingProxyType(
    {
        f"{_INFERENCE}ServerLive": _OPEN,
        f"{_INFERENCE}ServerReady": _OPEN,
        f"{_INFERENCE}ModelReady": _OPEN,
        f"{_INFERENCE}ServerMetadata": _KNOWN,
        f"{_INFERENCE}ModelMetadata": _KNOWN,
        f"{_INFERENCE}ModelConfig": _KNOWN,
        f"{_INFERENCE}ModelInfer": _INFER,
        f"{_INFERENCE}ModelStreamInfer": _INFER,
        f"{_INFERENCE}ModelStatistics": _OBSERVE,
        f"{_INFERENCE}RepositoryIndex": _OBSERVE,
        f"{_INFERENCE}RepositoryModelLoad": _STEER,
        f"{_INFERENCE}RepositoryModelUnload": _STEER,
        f"{_INFERENCE}SystemSharedMemoryStatus": _OBSERVE,
        f"{_INFERENCE}SystemSharedMemoryRegister": _STEER,
        f"{_INFERENCE}SystemSharedMemoryUnregister": _STEER,
        f"{_INFERENCE}CudaSharedMemoryStatus": _OBSERVE,
        f"{_INFERENCE}CudaSharedMemoryRegister": _STEER,
        f"{_INFERENCE}CudaSharedMemoryUnregister": _STEER,
        # One RPC each for reading the settings and for changing them.
        f"{_INFERENCE}TraceSetting": _STEER,
        f"{_INFERENCE}LogSettings": _STEER,
        f"{_CONTROL}ListVariants": _OBSERVE,
        f"{_CONTROL}GetTraffic": _OBSERVE,
        f"{_CONTROL}SetTraffic": _STEER,
        f"{_CONTROL}GetRollout": _OBSERVE,
        f"{_CONTROL}StartRollout": _STEER,
        f"{_CONTROL}AbortRollout": _STEER,
        f"{_CONTROL}Promote": _STEER,
        f"{_CONTROL}Rollback": _STEER,
        f"{_CONTROL}GetComparison": _OBSERVE,
        # Outcomes are the true answers to one's own requests.
        f"{_CONTROL}ReportOutcomes": _INFER,
        "/grpc.health.v1.Health/Check": _OPEN,
        "/grpc.health.v1.Health/Watch": _OPEN,
        # Names every model.
        "/grpc.health.v1.Health/List": _KNOWN,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _OBSERVE,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OBSERVE,
    }
)

# These read as well, which is no control: their handlers refuse the changes where control is off.
_ALSO_READING: Final = frozenset({f"{_INFERENCE}TraceSetting", f"{_INFERENCE}LogSettings"})

_CREDENTIAL: Final = "authorization"
_SCHEME: Final = "bearer"


def roles_of(path: str) -> frozenset[Role]:
    """Return the roles of which a caller needs one for the RPC "/package.Service/Method"; none: open to all.

    An RPC without a row takes the rarest role.
    """
    return _TABLE.get(path, _STEER)


class Access:
    """Lets a call pass or refuses it. Thread-safe.

    `callers` tells whom the server knows at the moment, or None when it asks nobody who they are;
    `allow_control` is whether anybody may control this server at all.
    """

    def __init__(
        self, callers: Callable[[], Callers | None] = lambda: None, *, allow_control: bool = True
    ) -> None:
        self._callers = callers
        self._allow_control = allow_control

    def check(self, path: str, call: Call) -> Caller:
        """Return who calls the RPC `path`, if they may; the call has it also if they may not.

        Raises:
            Unauthenticated: nobody knows who calls, and the RPC is not open to everybody.
            NotAllowed: the caller lacks the role, or control is off.
        """
        wanted = roles_of(path)
        if not wanted:
            return ANYBODY
        callers = self._callers()
        caller = ANYBODY if callers is None else _identified(callers, call)
        # Before anything is refused: who it was that may not is what a log is read for.
        call.caller = caller
        if not wanted & caller.roles:
            raise _lacking(path, wanted, caller)
        if wanted == _STEER and not self._allow_control and path not in _ALSO_READING:
            raise NotAllowed(
                f"{_method(path)} is off: this server was started with --no-allow-control, or on an address "
                "that others reach; change its repository instead, or start it with --allow-control."
            )
        return caller


def access_from(settings: ServerSettings) -> Access:
    """Return the check that a server's settings ask for.

    Raises:
        StartError: the access file cannot be used.
    """
    allow_control = settings.control_is_allowed()
    if settings.access is None:
        return Access(allow_control=allow_control)
    return Access(WatchedCallers(settings.access, read_callers).current, allow_control=allow_control)


def client_key(caller: Caller, peer: Callable[[], Peer]) -> str:
    """Return by what one caller's requests are counted: its name, its certificate's name, or its host."""
    if caller.name:
        return f"caller {caller.name!r}"
    end = peer()
    if end.certificate_names:
        return f"certificate {end.certificate_names[0]!r}"
    return f"host {end.host!r}"


def _identified(callers: Callers, call: Call) -> Caller:
    """Return who calls; somebody without credentials is nobody, with the roles that anyone has.

    Raises:
        Unauthenticated: the credential is wrong, which anyone's roles do not mend.
    """
    credential = call.metadata_value(_CREDENTIAL)
    if credential is not None:
        # The scheme's case does not matter (RFC 9110, section 11.1).
        scheme, _, token = credential.partition(" ")
        caller = callers.with_token(token.strip()) if scheme.lower() == _SCHEME else None
        if caller is None:
            raise Unauthenticated(
                "The credential in 'authorization' is not one that this server knows; send 'Bearer', a "
                "space, and a token whose SHA-256 is in the server's access file."
            )
        return caller
    return callers.with_certificate(call.peer().certificate_names) or Caller(roles=callers.anyone)


def _lacking(path: str, wanted: frozenset[Role], caller: Caller) -> Unauthenticated | NotAllowed:
    needed = " or ".join(f"'{role}'" for role in Role if role in wanted)
    if not caller.name:
        return Unauthenticated(
            f"{_method(path)} is for callers with the role {needed}; send a bearer token as 'authorization', "
            "or a client certificate, that the server's access file names."
        )
    return NotAllowed(
        f"{_method(path)} is for callers with the role {needed}, which {caller.name!r} does not have; ask "
        "who runs the server for it."
    )


def _method(path: str) -> str:
    return path.rpartition("/")[2]
