"""The alert rules as documents, as a PrometheusRule, and run by promtool over made-up series."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

RULES = Path(__file__).resolve().parents[2] / "helm" / "flyweight" / "rules" / "flyweight.yaml"

WHO = 'instance="a", model="m", variant="v"'

# By alert: series that make it fire at 20 minutes (promtool's notation), and series that do not.
CASES = {
    "FlyweightLoadFailed": (
        {f'flyweight_loads_total{{{WHO}, outcome="failed"}}': "_x15 1x20"},
        {f'flyweight_loads_total{{{WHO}, outcome="failed"}}': "3x40"},
    ),
    "FlyweightWorkerRestarted": (
        {f"flyweight_worker_restarts_total{{{WHO}}}": "0x15 1x20"},
        {f"flyweight_worker_restarts_total{{{WHO}}}": "7x40"},
    ),
    "FlyweightWorkerCrashLoop": (
        {f"flyweight_worker_restarts_total{{{WHO}}}": "0+1x40"},
        {f"flyweight_worker_restarts_total{{{WHO}}}": "0x15 1x20"},
    ),
    "FlyweightRequestsRejected": (
        {
            'flyweight_requests_rejected_total{model="m", reason="queue_full"}': "0+2x40",
            'flyweight_requests_total{model="m", code="OK"}': "0+98x40",
        },
        {
            'flyweight_requests_rejected_total{model="m", reason="draining"}': "0+2x40",
            'flyweight_requests_total{model="m", code="OK"}': "0+98x40",
        },
    ),
    "FlyweightRequestsFail": (
        {
            f'flyweight_requests_total{{{WHO}, code="INTERNAL"}}': "0+2x40",
            f'flyweight_requests_total{{{WHO}, code="OK"}}': "0+98x40",
        },
        {
            f'flyweight_requests_total{{{WHO}, code="INVALID_ARGUMENT"}}': "0+50x40",
            f'flyweight_requests_total{{{WHO}, code="OK"}}': "0+50x40",
        },
    ),
    "FlyweightTrafficPlanRefused": (
        {'flyweight_traffic_plan_errors_total{model="m", instance="a"}': "_x15 1x20"},
        {'flyweight_traffic_plan_errors_total{model="m", instance="a"}': "1x40"},
    ),
    "FlyweightRepositoryUnreadable": (
        {'flyweight_repository_scans_total{instance="a", outcome="failed"}': "0+5x40"},
        {'flyweight_repository_scans_total{instance="a", outcome="failed"}': "5x40"},
    ),
}


def _rules():
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.fixture(params=sorted(_rules()))
def rule(request):
    return _rules()[request.param]


def test_it_is_promql_over_series_that_the_server_has(rule, exposed):
    promql_parser.parse(rule["expr"])

    assert set(re.findall(r"\bflyweight_\w+", rule["expr"])) <= exposed


def test_it_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["summary"]) < 80


def test_it_has_a_case_that_fires_and_one_that_does_not(rule):
    assert rule["alert"] in CASES


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays silent"])
def test_promtool_agrees(rule, fires, tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: apt install prometheus)")
    bad, good = CASES[rule["alert"]]
    series = [{"series": name, "values": values} for name, values in (bad if fires else good).items()]
    # "for" any labels: how often it fires, without spelling out the sentences.
    check = {
        "expr": f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}})',
        "eval_time": "20m",
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [check]}
    # JSON is YAML.
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": [str(RULES)], "tests": [case]}))

    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yaml")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_gets_the_file_as_it_is(render, claim):
    (found,) = [item for item in render(*claim) if item["kind"] == "PrometheusRule"]

    assert found["apiVersion"] == "monitoring.coreos.com/v1"
    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert found["spec"] == yaml.safe_load(RULES.read_text(encoding="utf-8"))
