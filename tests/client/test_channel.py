"""From settings to what gRPC takes."""

import json
from pathlib import Path

import pytest

from flyweight.client import InvalidRequest, RetryPolicy, Settings, TlsSettings, channel


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8001", "localhost:1", "a.example.org:65535", "[::1]:8001", "unix:/tmp/s", "dns:///host:80"],
)
def test_addresses_that_grpc_takes_pass(address: str) -> None:
    assert channel.check_address(address) == address


@pytest.mark.parametrize(
    "address", ["localhost", "", ":8001", "host:port", "host:70000", "::1:8001", "a b:1"]
)
def test_an_address_without_host_and_port_is_refused_by_name(address: str) -> None:
    with pytest.raises(InvalidRequest, match="HOST:PORT") as caught:
        channel.check_address(address)
    assert repr(address) in str(caught.value)


def test_an_address_with_a_scheme_says_what_to_write_instead() -> None:
    with pytest.raises(InvalidRequest, match=r"try '127\.0\.0\.1:8001'"):
        channel.check_address("http://127.0.0.1:8001/")


def test_the_service_config_is_the_one_of_grpc_proposal_a6() -> None:
    policy = RetryPolicy(
        max_attempts=3, initial_backoff_seconds=0.05, max_backoff_seconds=1, throttle_tokens=10
    )
    assert json.loads(channel.service_config(policy)) == {
        "methodConfig": [
            {
                "name": [{"service": "inference.GRPCInferenceService"}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.050s",
                    "maxBackoff": "1.000s",
                    "backoffMultiplier": 2.0,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


def test_one_attempt_means_no_retry_policy() -> None:
    config = json.loads(channel.service_config(RetryPolicy(max_attempts=1)))
    assert "retryPolicy" not in config["methodConfig"][0]


@pytest.mark.parametrize(
    "policy",
    [RetryPolicy(max_attempts=0), RetryPolicy(max_attempts=6), RetryPolicy(initial_backoff_seconds=0)],
)
def test_a_policy_that_grpc_would_ignore_is_refused(policy: RetryPolicy) -> None:
    with pytest.raises(InvalidRequest):
        channel.service_config(policy)


def test_keepalive_and_server_name_appear_only_when_asked_for() -> None:
    plain = dict(channel.options(Settings()))
    asked = dict(channel.options(Settings(keepalive_seconds=20, tls=TlsSettings(server_name="s"))))
    assert "grpc.keepalive_time_ms" not in plain
    assert asked["grpc.keepalive_time_ms"] == 20_000
    assert asked["grpc.ssl_target_name_override"] == "s"


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="key"):
        channel.credentials(TlsSettings(certificate=tmp_path / "c.pem"))


def test_a_missing_pem_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere\.pem cannot be read"):
        channel.credentials(TlsSettings(ca=tmp_path / "nowhere.pem"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/s"])
def test_a_bearer_token_may_stay_on_this_machine_in_the_clear(address: str) -> None:
    assert channel.metadata(address, Settings(bearer_token="t")) == (("authorization", "Bearer t"),)


def test_a_bearer_token_never_crosses_a_network_in_the_clear() -> None:
    with pytest.raises(InvalidRequest, match="in the clear"):
        channel.metadata("10.0.0.7:8001", Settings(bearer_token="t"))
    with_tls = Settings(bearer_token="t", tls=TlsSettings())
    assert channel.metadata("10.0.0.7:8001", with_tls) == (("authorization", "Bearer t"),)


def test_a_bearer_token_is_not_shown_in_logs_of_the_settings() -> None:
    assert "secret" not in repr(Settings(bearer_token="secret"))
