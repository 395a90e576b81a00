"""The ServiceMonitor, whose schema belongs to the Prometheus operator (monitoring.coreos.com/v1)."""

import re


def _monitor(objects):
    (found,) = [item for item in objects if item["kind"] == "ServiceMonitor"]
    return found


def test_it_scrapes_the_metrics_port_of_the_service(render, claim):
    objects = render(*claim)
    (service,) = [item for item in objects if item["kind"] == "Service"]
    monitor = _monitor(objects)
    (endpoint,) = monitor["spec"]["endpoints"]

    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["models"]}


def test_it_carries_the_labels_by_which_prometheus_selects(render, claim):
    assert _monitor(render(*claim))["metadata"]["labels"]["release"] == "prometheus"


def test_it_says_only_what_the_operator_knows(render, claim):
    """Prometheus operator, API reference: ServiceMonitorSpec, Endpoint, Duration."""
    monitor = _monitor(render(*claim))
    (endpoint,) = monitor["spec"]["endpoints"]

    assert set(monitor) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(monitor["spec"]) == {"selector", "namespaceSelector", "endpoints"}
    assert set(endpoint) == {"port", "path", "interval", "scrapeTimeout"}
    for name in ("interval", "scrapeTimeout"):
        assert re.fullmatch(r"([0-9]+ms)|([0-9]+s)", endpoint[name])
