import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import Lineage, VariantManifest
from flyweight.server import cli
from flyweight.server.cli import check, serve
from flyweight.server.logs import JsonFormatter, warn_of_open_doors
from flyweight.server.serve_options import SECTIONS
from flyweight.server.settings import (
    Compression,
    ConnectionSettings,
    LogFormat,
    LogLevel,
    ModelControl,
    RequestLimits,
    ServerSettings,
    TlsFiles,
    read_pem,
)
from flyweight.server.token_command import token


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServerSettings]:
    """Return a function from a command line to the settings that a server would get."""
    # It is how a run of the tests chooses the transport of its servers; here the command line alone speaks.
    monkeypatch.delenv("FLYWEIGHT_SERVE_TRANSPORT", raising=False)
    seen: list[ServerSettings] = []
    monkeypatch.setattr(cli, "Server", seen.append)
    monkeypatch.setattr(cli, "_run", lambda _: 0)
    monkeypatch.setattr(cli, "configure_logging", lambda *_: None)

    def parse(*arguments: str) -> ServerSettings:
        serve.main(list(arguments), standalone_mode=False)
        return seen.pop()

    return parse


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[logging.Logger]:
    """Return the root logger, which is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_commands_defaults_are_the_settings_defaults(settings_of: Callable[..., ServerSettings]) -> None:
    assert settings_of("repository") == ServerSettings(Path("repository"))


def test_every_option_arrives(settings_of: Callable[..., ServerSettings]) -> None:
    settings = settings_of(
        *("repository", "--host", "0.0.0.0", "--port", "1", "--metrics-host", "::1", "--metrics-port", "2"),
        *("--model-control", "explicit", "--poll-seconds", "3", "--max-in-flight", "4", "--max-running", "5"),
        *("--threads", "6", "--max-message-megabytes", "7", "--drain-seconds", "8"),
        *("--shutdown-delay-seconds", "9", "--strict", "--no-allow-control", "--log-format", "json"),
        *("--tls-cert", "c.pem", "--tls-key", "k.pem", "--tls-client-ca", "a.pem", "--access", "who.yaml"),
        *("--max-in-flight-per-client", "10", "--max-tensor-megabytes", "11", "--max-string-megabytes", "12"),
        *("--max-tensors", "13", "--max-metadata-bytes", "5000", "--max-connections", "14"),
        *("--max-streams", "140"),
        *("--handshake-seconds", "15", "--keepalive-seconds", "16", "--keepalive-timeout-seconds", "17"),
        *("--min-ping-seconds", "18", "--max-connection-idle-seconds", "19"),
        *("--max-connection-age-seconds", "20", "--max-connection-age-grace-seconds", "21"),
        *("--compression", "gzip", "--log-level", "debug", "--access-log"),
    )
    assert settings == ServerSettings(
        repository=Path("repository"),
        host="0.0.0.0",
        port=1,
        metrics_host="::1",
        metrics_port=2,
        model_control=ModelControl.EXPLICIT,
        poll_seconds=3,
        max_in_flight=4,
        max_running=5,
        threads=6,
        max_message_bytes=7 << 20,
        drain_seconds=8,
        shutdown_delay_seconds=9,
        strict=True,
        allow_control=False,
        log_format=LogFormat.JSON,
        tls=TlsFiles(Path("c.pem"), Path("k.pem"), Path("a.pem")),
        access=Path("who.yaml"),
        max_in_flight_per_client=10,
        limits=RequestLimits(max_tensor_bytes=11 << 20, max_string_bytes=12 << 20, max_tensors=13),
        connections=ConnectionSettings(
            max_connections=14,
            max_streams=140,
            max_metadata_bytes=5000,
            handshake_seconds=15,
            keepalive_seconds=16,
            keepalive_timeout_seconds=17,
            min_ping_seconds=18,
            max_connection_idle_seconds=19,
            max_connection_age_seconds=20,
            max_connection_age_grace_seconds=21,
            compression=Compression.GZIP,
        ),
        log_level=LogLevel.DEBUG,
        access_log=True,
    )


def test_a_runtimes_setting_is_a_key_and_a_value(settings_of: Callable[..., ServerSettings]) -> None:
    settings = settings_of("repository", "--session-entry", "a=1", "--session-entry", "b=x=y")
    assert settings.session_entries == {"a": "1", "b": "x=y"}
    with pytest.raises(click.BadParameter, match="KEY=VALUE"):
        settings_of("repository", "--session-entry", "a")


def test_an_environment_variable_is_an_option_that_the_command_line_overrides(
    settings_of: Callable[..., ServerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_SERVE_REPOSITORY", "from-environment")
    monkeypatch.setenv("FLYWEIGHT_SERVE_MAX_IN_FLIGHT", "7")
    monkeypatch.setenv("FLYWEIGHT_SERVE_MAX_CONNECTION_IDLE_SECONDS", "5")
    monkeypatch.setenv("FLYWEIGHT_SERVE_ALLOW_CONTROL", "false")
    settings = settings_of("--max-in-flight", "8")
    assert settings.repository == Path("from-environment")
    assert settings.max_in_flight == 8
    assert settings.connections.max_connection_idle_seconds == 5
    assert settings.allow_control is False


def test_what_kubernetes_says_of_a_service_named_flyweight_is_no_option(
    settings_of: Callable[..., ServerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_PORT", "tcp://10.0.0.1:8001")
    monkeypatch.setenv("FLYWEIGHT_SERVICE_HOST", "10.0.0.1")
    assert settings_of("repository") == ServerSettings(Path("repository"))


def test_grpc_and_metrics_cannot_share_a_port(settings_of: Callable[..., ServerSettings]) -> None:
    with pytest.raises(click.UsageError, match="cannot share port 9000"):
        settings_of("repository", "--port", "9000", "--metrics-port", "9000")
    settings_of("repository", "--port", "0", "--metrics-port", "0")


@pytest.mark.parametrize(
    ("host", "access", "asked", "allowed"),
    [
        ("127.0.0.1", None, None, True),
        ("localhost", None, None, True),
        ("::1", None, None, True),
        ("unix:/run/flyweight.sock", None, None, True),
        ("0.0.0.0", None, None, False),
        ("::", None, None, False),
        ("models.example.org", None, None, False),
        ("0.0.0.0", Path("who.yaml"), None, True),
        ("0.0.0.0", None, True, True),
        ("127.0.0.1", Path("who.yaml"), False, False),
    ],
)
def test_control_is_for_this_machine_or_for_known_callers(
    host: str, access: Path | None, asked: bool | None, allowed: bool
) -> None:
    settings = ServerSettings(Path(), host=host, access=access, allow_control=asked)
    assert settings.control_is_allowed() == allowed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ServerSettings(Path(), access=Path("who.yaml")), None),
        (ServerSettings(Path(), host="0.0.0.0"), None),
        (ServerSettings(Path(), host="unix:a", access=Path("who.yaml"), allow_control=True), None),
        (ServerSettings(Path(), host="0.0.0.0", access=Path("who.yaml")), "Tokens travel unencrypted"),
        (ServerSettings(Path(), host="0.0.0.0", allow_control=True), "Whoever reaches 0.0.0.0 may load"),
        (
            ServerSettings(Path(), host="::", access=Path("w"), tls=TlsFiles(Path("c"), Path("k"))),
            None,
        ),
    ],
)
def test_an_open_door_is_warned_of(
    settings: ServerSettings, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_open_doors(settings)
    assert [said in record.getMessage() for record in caplog.records if said] == ([True] if said else [])
    assert bool(caplog.records) == bool(said)


@pytest.mark.parametrize("options", [["--tls-cert", "c.pem"], ["--tls-key", "k"], ["--tls-client-ca", "a"]])
def test_half_of_tls_is_refused(settings_of: Callable[..., ServerSettings], options: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--tls-cert and --tls-key"):
        settings_of("repository", *options)


@pytest.mark.parametrize("option", ["--poll-seconds", "--drain-seconds", "--shutdown-delay-seconds"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "1e12"])
def test_a_time_that_no_clock_can_wait_for_is_refused(
    settings_of: Callable[..., ServerSettings], option: str, seconds: str
) -> None:
    with pytest.raises(click.BadParameter) as caught:
        settings_of("repository", option, seconds)
    assert f"'{option}'" in caught.value.format_message()


@pytest.mark.parametrize("seconds", ["nan", "inf", "0"])
def test_check_refuses_a_time_it_cannot_wait_for(repository: Path, seconds: str) -> None:
    result = CliRunner().invoke(check, [str(repository), "--timeout", seconds])
    assert result.exit_code == 2
    assert "'--timeout'" in result.output


def test_an_unreadable_pem_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"missing\.pem, the TLS key, cannot be read"):
        read_pem(tmp_path / "missing.pem", "TLS key")


def test_as_many_runs_as_processors_unless_told_otherwise() -> None:
    assert ServerSettings(Path()).runs_at_once() >= 1
    assert ServerSettings(Path(), max_running=3).runs_at_once() == 3


class Stand:
    """Stands in for a server whose start or stop gets a signal."""

    def __init__(self, signal_at: str, number: signal.Signals, *, drains: bool = True) -> None:
        self.signal_at, self.number, self.drains = signal_at, number, drains
        self.story: list[str] = []

    def start(self) -> str:
        if self.signal_at == "start":
            signal.raise_signal(self.number)
        self.story.append("started")
        threading.Timer(0, os.kill, (os.getpid(), self.number)).start()
        return "ready"

    def stop(self, *, at_once: bool = False) -> bool:
        self.story.append("stopped at once" if at_once else "drained")
        return self.drains


@pytest.fixture
def kept_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_start_drains(number: signal.Signals) -> None:
    server = Stand("running", number)
    assert cli._run(server) == 0  # type: ignore[arg-type]
    assert server.story == ["started", "drained"]


@pytest.mark.usefixtures("kept_signals")
def test_a_signal_while_loading_does_not_wait_for_the_rest() -> None:
    server = Stand("start", signal.SIGTERM)
    assert cli._run(server) == 0  # type: ignore[arg-type]
    assert server.story == ["drained"]


def sections_of(help_text: str) -> dict[str, str]:
    """Return the text under each heading that a help has."""
    parts = re.split(r"^(\S.*):$", help_text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_helps_options_stand_under_headings() -> None:
    sections = sections_of(CliRunner().invoke(serve, ["--help"]).output)
    assert "--port" in sections["Addresses"]
    assert "--access" in sections["Callers"]
    # Only what every command has.
    rest = sections["Other"].partition("\n\n")[0]
    assert re.findall(r"--[a-z-]+", rest) == ["--help"]
    assert "REPOSITORY" not in rest


def test_every_name_under_a_heading_is_an_option() -> None:
    options = {name for param in serve.params for name in param.opts}
    assert {name for names in SECTIONS.values() for name in names} <= options


def test_helps_defaults_are_written_as_they_are_given() -> None:
    shown = CliRunner().invoke(serve, ["--help"]).output
    assert "[poll|explicit]" in shown
    assert re.search(r"\[default:\s+[A-Z]", shown) is None


def test_every_default_is_told() -> None:
    """A flag is off when it is not given, and files and folders are none."""
    context = click.Context(serve)
    for param in serve.params:
        if isinstance(param, click.Option) and not isinstance(param.type, click.Path):
            record = param.get_help_record(context)
            assert record is not None
            assert "[default: " in record[1] or param.multiple or param.is_flag, param.opts[0]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("tiny", "."), ("tiny/int8", "."), ("tiny/int8/model.onnx", "."), ("tiny/traffic.yaml", "tiny")],
)
@pytest.mark.parametrize("command", [serve, check])
def test_a_path_inside_a_repository_is_told_with_the_one_that_is_meant(
    repository: Path, command: click.Command, given: str, meant: str
) -> None:
    (repository / "tiny" / "traffic.yaml").write_text("baseline: baseline")
    with pytest.raises(RepositoryError) as caught:
        command.main([str(repository / given)], standalone_mode=False)
    assert str(repository / given) in str(caught.value)
    assert re.search(rf"{re.escape(str((repository / meant).resolve()))}\b", str(caught.value))


def test_a_models_folder_is_known_without_any_file_beside_its_variants(repository: Path) -> None:
    with pytest.raises(RepositoryError, match="folder of one model"):
        check.main([str(repository / "tiny")], standalone_mode=False)


@pytest.mark.parametrize("command", [serve, check, token])
def test_help_fits_a_terminal_of_80_columns(command: click.Command) -> None:
    shown = CliRunner().invoke(command, ["--help"], terminal_width=80).output
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", [serve, check])
def test_help_shows_examples(command: click.Command) -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "Examples:" in shown
    assert "flyweight" in shown


def test_check_is_content_with_a_good_repository(repository: Path) -> None:
    result = CliRunner().invoke(check, [str(repository)], standalone_mode=False)
    assert result.return_value == 0
    assert "tiny/baseline: baseline, 100% of the traffic" in result.output
    assert "2 variants can be served" in result.output


def test_check_tells_every_fault(repository: Path) -> None:
    (repository / "tiny" / "int8" / "model.onnx").write_bytes(b"not a model")
    (repository / "tiny" / "traffic.yaml").write_text("split: {baseline: 10}")
    result = CliRunner().invoke(check, [str(repository)], standalone_mode=False)
    assert result.return_value == 2
    faults = result.stderr.splitlines()
    assert all(line.startswith("flyweight: error: tiny") for line in faults)
    assert any("model.onnx" in line for line in faults)
    assert any("add up to 10" in line for line in faults)


def test_check_tells_a_fault_once(repository: Path, kept_logging: logging.Logger) -> None:
    """Where nobody set up logging, as in the command, warnings would go to standard error by themselves."""
    kept_logging.handlers.clear()
    (repository / "tiny" / "int8" / "model.onnx").write_bytes(b"not a model")
    result = CliRunner().invoke(check, [str(repository)], standalone_mode=False)
    (fault,) = result.stderr.splitlines()
    assert fault.startswith("flyweight: error: tiny/int8: ")


def test_check_notes_what_a_configuration_asks_for_in_vain(repository: Path) -> None:
    (repository / "tiny" / "config.pbtxt").write_text("optimization {eager_batching: true}")
    result = CliRunner().invoke(check, [str(repository)], standalone_mode=False)
    assert result.return_value == 0
    # Once, though both variants are loaded with it.
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("flyweight: note: ")]
    assert "The config.pbtxt of tiny sets optimization.eager_batching, which has no meaning here" in note
    document = json.loads(CliRunner().invoke(check, [str(repository), "--json"]).stdout)
    assert (document["ok"], len(document["notes"])) == (True, 1)


def test_check_warns_of_a_variant_that_was_measured_on_another_processor(
    repository_root: Path, publish: Any
) -> None:
    def elsewhere(manifest: VariantManifest) -> None:
        manifest.environment.instruction_sets.append("mmx_of_tomorrow")

    publish("baseline", 2.0, edit=elsewhere)
    result = CliRunner().invoke(check, [str(repository_root)], standalone_mode=False)
    assert result.return_value == 0
    warning = "flyweight: warning: tiny/baseline was measured on a processor with mmx_of_tomorrow, which this"
    assert warning in result.stderr


def test_a_repository_without_any_model_is_not_fine(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"at the top")
    result = CliRunner().invoke(check, [str(tmp_path)], standalone_mode=False)
    assert result.return_value == 2
    assert f"flyweight: error: {tmp_path} holds no model; a model is a folder in it" in result.stderr


def test_checks_json_is_one_document(repository: Path) -> None:
    (repository / "tiny" / "traffic.yaml").write_text("split: {baseline: 90, int8: 10}")
    result = CliRunner().invoke(check, [str(repository), "--json"], standalone_mode=False)
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["ok"] is True
    assert document["faults"] == []
    assert [(v["variant"], v["role"], v["share"]) for v in document["variants"]] == [
        ("baseline", "baseline", 0.9),
        ("int8", "candidate", 0.1),
    ]


def test_check_warns_of_a_variant_of_another_baseline(repository_root: Path, publish: Any) -> None:
    publish("baseline", 2.0)

    def of_another(manifest: VariantManifest) -> None:
        manifest.lineage.MergeFrom(Lineage(recipe="r", data_sha256="d", parent_sha256="0" * 64))

    publish("int8", 3.0, parent="baseline", edit=of_another)
    result = CliRunner().invoke(check, [str(repository_root)], standalone_mode=False)
    assert result.return_value == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("flyweight: warning: ")
    assert "was derived from another 'baseline' than the one in" in warning
    document = json.loads(CliRunner().invoke(check, [str(repository_root), "--json"]).stdout)
    assert (document["ok"], len(document["warnings"])) == (True, 1)


def test_check_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="nowhere"):
        check.main([str(tmp_path / "nowhere")], standalone_mode=False)


def test_a_json_log_line_holds_the_exception_too() -> None:
    error = ValueError("inside")
    info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("flyweight", logging.ERROR, __file__, 1, "it %s", ("failed",), info)
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("error", "flyweight", "it failed")
    assert "ValueError: inside" in line["exception"]
    assert line["time"].endswith("Z")
