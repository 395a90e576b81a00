"""The chart's values: every one described, every wrong one refused."""

import json

import pytest
import yaml


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ("replica=2", "replica"),
        ("server.poolSeconds=1", "poolSeconds"),
        ("server.drainSeconds=-1", "drainSeconds"),
        ("server.maxInFlight=0", "maxInFlight"),
        ("server.modelControl=none", "modelControl"),
        ("server.modelControl=explicit", "allowControl"),
        ("image.digest=latest", "digest"),
        ("repository.kind=s3", "kind"),
        ("repository.kind=existingClaim", "existingClaim"),
        ("repository.kind=hostPath", "hostPath"),
        ("repository.kind=configMap", "configMap"),
        ("tls.enabled=true", "existingSecret"),
        ("access.enabled=true", "existingSecret"),
        ("server.runtime=thread", "runtime"),
        ("server.loadThreads=9", "loadThreads"),
        ("server.compat=tfserving", "compat"),
        ("limits.maxMetadataBytes=1", "maxMetadataBytes"),
        ("connections.keepaliveTimeoutSeconds=0", "keepaliveTimeoutSeconds"),
        ("uploads.enabled=true", "allowControl"),
        ("traces.enabled=true", "allowControl"),
        ("repository.writable=true", "allowControl"),
        ("serviceMonitor.interval=soon", "interval"),
        ("probes.liveness.path=/", "path"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm, sets, named):
    done = helm("template", "release", ".", "--set", sets)

    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert named in done.stderr


def _leaves(value, path=()):
    """Yield the path of every value; an empty mapping or list is a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


def test_the_schema_knows_every_value(chart):
    """Strict: no object admits unknown keys, except those that Kubernetes defines."""
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))

    for path in _leaves(values):
        at = schema
        for key in path:
            if at.get("additionalProperties") is not False:
                break
            assert key in at["properties"], path
            at = at["properties"][key]


def test_every_group_of_values_is_described(chart):
    """Each top-level value, or its first line inside, has a comment."""
    lines = (chart / "values.yaml").read_text(encoding="utf-8").splitlines()
    bare = []
    for number, line in enumerate(lines):
        if line[:1] in {"", " ", "#"}:
            continue
        neighbours = (lines[number - 1], lines[number + 1] if number + 1 < len(lines) else "")
        if not any(neighbour.lstrip().startswith("#") for neighbour in neighbours):
            bare.append(line)

    assert bare == []


def test_every_optional_part_is_off_by_default(chart):
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    groups = {name: part for name, part in values.items() if isinstance(part, dict)}
    switches = {name: part["enabled"] for name, part in groups.items() if "enabled" in part}

    assert len(switches) >= 6
    assert not any(switches.values()), switches
