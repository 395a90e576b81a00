"""Who may call which RPC."""

from pathlib import Path

import pytest

from flyweight.protos.control.v1 import control_pb2
from flyweight.protos.inference import grpc_service_pb2
from flyweight.server.errors import Code, NotAllowed, Unauthenticated, code_of
from flyweight.server.rpc import access
from flyweight.server.rpc.access import Access, client_key, roles_of
from flyweight.server.rpc.call import Call, Peer
from flyweight.server.security.callers import ANYBODY, Caller, Role
from flyweight.server.security.document import callers_of
from flyweight.server.security.tokens import digest_of

INFERENCE = "/inference.GRPCInferenceService/"
CONTROL = "/flyweight.control.v1.ControlService/"

CALLERS = callers_of(
    f"""
callers:
  - {{name: shop, roles: [infer], tokens_sha256: [{digest_of("shop-token")}]}}
  - {{name: watcher, roles: [observe], certificates: [watcher.example]}}
  - {{name: operator, roles: [control], tokens_sha256: [{digest_of("operator-token")}]}}
""",
    Path("access.yaml"),
)
GUARDED = Access(lambda: CALLERS)
ONE_OF_EACH = {
    Role.INFER: f"{INFERENCE}ModelInfer",
    Role.OBSERVE: f"{INFERENCE}ModelStatistics",
    Role.CONTROL: f"{INFERENCE}RepositoryModelLoad",
}
OPEN = [f"{INFERENCE}{name}" for name in ("ServerLive", "ServerReady", "ModelReady")] + [
    f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")
]


def bearer(token: str, scheme: str = "Bearer") -> Call:
    return Call(metadata=(("authorization", f"{scheme} {token}"),))


def with_certificate(*names: str) -> Call:
    return Call(peer=lambda: Peer("10.0.0.1:5", names))


SHOP, WATCHER, OPERATOR = bearer("shop-token"), with_certificate("watcher.example"), bearer("operator-token")


def declared() -> list[str]:
    """Return the paths of all RPCs of our own services."""
    services = [
        *grpc_service_pb2.DESCRIPTOR.services_by_name.values(),
        *control_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


@pytest.mark.parametrize("path", declared())
def test_every_rpc_has_a_row(path: str) -> None:
    assert path in access._TABLE


def test_the_table_has_no_row_for_an_rpc_that_is_not_there() -> None:
    foreign = {path for path in access._TABLE if path.startswith("/grpc.")}
    assert set(access._TABLE) - foreign == set(declared())


def test_an_rpc_without_a_row_is_for_those_who_may_control() -> None:
    assert roles_of("/some.Service/New") == {Role.CONTROL}


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("call", [Call(), bearer("wrong")])
def test_probes_need_no_credentials(path: str, call: Call) -> None:
    GUARDED.check(path, call)


@pytest.mark.parametrize("path", declared())
def test_without_an_access_file_everybody_has_every_role(path: str) -> None:
    assert Access().check(path, Call()) is ANYBODY


@pytest.mark.parametrize(("role", "path"), ONE_OF_EACH.items())
def test_a_role_opens_its_own_rpcs_and_no_others(role: Role, path: str) -> None:
    named = {Role.INFER: SHOP, Role.OBSERVE: WATCHER, Role.CONTROL: OPERATOR}
    assert GUARDED.check(path, named[role]).roles == {role}
    for other in set(Role) - {role}:
        with pytest.raises(NotAllowed) as caught:
            GUARDED.check(path, named[other])
        assert f"the role '{role}'" in str(caught.value)


@pytest.mark.parametrize(("call", "name"), [(bearer("shop-token"), "shop"), (Call(), "")])
def test_who_is_refused_is_noted_for_the_access_log(call: Call, name: str) -> None:
    with pytest.raises((NotAllowed, Unauthenticated)):
        GUARDED.check(ONE_OF_EACH[Role.CONTROL], call)
    assert call.caller.name == name


@pytest.mark.parametrize("call", [SHOP, WATCHER, OPERATOR])
def test_metadata_is_for_whoever_is_known(call: Call) -> None:
    GUARDED.check(f"{INFERENCE}ModelMetadata", call)
    with pytest.raises(Unauthenticated):
        GUARDED.check(f"{INFERENCE}ModelMetadata", Call())


@pytest.mark.parametrize(
    "call",
    [
        Call(),
        bearer("wrong"),
        bearer("shop-token", scheme="Basic"),
        Call(metadata=(("authorization", "shop-token"),)),
        Call(metadata=(("authorization", "Bearer"),)),
        Call(metadata=(("authorization", ""),)),
        with_certificate("unknown.example"),
    ],
)
def test_who_is_not_known_is_unauthenticated(call: Call) -> None:
    with pytest.raises(Unauthenticated) as caught:
        GUARDED.check(ONE_OF_EACH[Role.INFER], call)
    assert code_of(caught.value) is Code.UNAUTHENTICATED
    assert "wrong" not in str(caught.value)
    assert "shop-token" not in str(caught.value)


def test_a_wrong_token_is_not_mended_by_a_known_certificate() -> None:
    call = Call(metadata=bearer("wrong").metadata, peer=WATCHER.peer)
    with pytest.raises(Unauthenticated):
        GUARDED.check(ONE_OF_EACH[Role.OBSERVE], call)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_case_does_not_matter(scheme: str) -> None:
    assert GUARDED.check(ONE_OF_EACH[Role.INFER], bearer("shop-token", scheme)).name == "shop"


def test_anyones_roles_need_no_credential_and_a_wrong_one_is_still_wrong() -> None:
    callers = callers_of("anyone: [infer]", Path("access.yaml"))
    guard = Access(lambda: callers)
    path = ONE_OF_EACH[Role.INFER]
    assert guard.check(path, Call()).name == ""
    guard.check(path, with_certificate("unknown.example"))
    with pytest.raises(Unauthenticated):
        guard.check(path, bearer("wrong"))
    with pytest.raises(Unauthenticated):
        guard.check(ONE_OF_EACH[Role.CONTROL], Call())


def test_a_change_of_the_callers_counts_from_the_next_call() -> None:
    current = [CALLERS]
    guard = Access(lambda: current[0])
    guard.check(ONE_OF_EACH[Role.INFER], SHOP)
    current[0] = callers_of("callers: []", Path("access.yaml"))
    with pytest.raises(Unauthenticated):
        guard.check(ONE_OF_EACH[Role.INFER], SHOP)


CHANGING = [
    *(f"{INFERENCE}{name}" for name in ("RepositoryModelLoad", "RepositoryModelUnload")),
    f"{INFERENCE}SystemSharedMemoryRegister",
    *(f"{CONTROL}{name}" for name in ("SetTraffic", "StartRollout", "AbortRollout", "Promote", "Rollback")),
]


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize("guard", [Access(allow_control=False), Access(lambda: CALLERS, allow_control=False)])
def test_where_control_is_off_nobody_has_it(path: str, guard: Access) -> None:
    with pytest.raises(NotAllowed, match="--allow-control"):
        guard.check(path, OPERATOR)


@pytest.mark.parametrize("name", ["TraceSetting", "LogSettings"])
def test_where_control_is_off_settings_can_still_be_read(name: str) -> None:
    Access(allow_control=False).check(f"{INFERENCE}{name}", Call())


def test_who_is_refused_for_control_being_off_is_known_first() -> None:
    with pytest.raises(Unauthenticated):
        Access(lambda: CALLERS, allow_control=False).check(CHANGING[0], Call())


@pytest.mark.parametrize(
    ("caller", "peer", "key"),
    [
        (Caller("shop"), Peer("10.0.0.1:5", ("x.example",)), "caller 'shop'"),
        (ANYBODY, Peer("10.0.0.1:5", ("x.example", "y.example")), "certificate 'x.example'"),
        (ANYBODY, Peer("10.0.0.1:5"), "host '10.0.0.1'"),
        (ANYBODY, Peer("[::1]:5"), "host '[::1]'"),
    ],
)
def test_a_caller_is_counted_by_the_best_name_it_has(caller: Caller, peer: Peer, key: str) -> None:
    assert client_key(caller, lambda: peer) == key
