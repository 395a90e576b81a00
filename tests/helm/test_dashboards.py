"""The Grafana dashboards as documents; tests/system/test_dashboard_expressions.py runs their expressions."""

import json
import re
from pathlib import Path

import promql_parser
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "flyweight" / "dashboards"
GRID_COLUMNS = 24


@pytest.fixture(params=sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def dashboard(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def _panels(dashboard):
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]


def _shown(dashboard):
    return [panel for panel in _panels(dashboard) if panel["type"] != "row"]


def _expressions(dashboard):
    targets = [target["expr"] for panel in _panels(dashboard) for target in panel.get("targets", [])]
    return targets + [note["expr"] for note in dashboard["annotations"]["list"] if "expr" in note]


def test_it_can_be_imported_anywhere(dashboard):
    """No address inside one Grafana: a stable uid, no id, the data source from a variable."""
    assert re.fullmatch(r"flyweight-[a-z-]{1,30}", dashboard["uid"])
    assert dashboard["id"] is None
    sources = [panel["datasource"] for panel in _shown(dashboard)]
    sources += [target["datasource"] for panel in _shown(dashboard) for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_grafana_11_reads_it(dashboard):
    """Grafana 11.0 writes schema version 39 and reads every earlier one."""
    assert dashboard["schemaVersion"] == 39


def test_every_panel_says_which_question_it_answers(dashboard):
    for panel in _shown(dashboard):
        assert "?" in panel["description"], panel["title"]


def test_every_figure_has_a_unit(dashboard):
    for panel in _shown(dashboard):
        config = panel["fieldConfig"]
        named = [item["id"] for override in config["overrides"] for item in override["properties"]]
        drawn = "unit" in config["defaults"] or "unit" in named or "unit" in panel["options"].get("yAxis", {})
        assert drawn, panel["title"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    panels = _panels(dashboard)
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_expressions_are_promql(dashboard):
    for expression in _expressions(dashboard):
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def test_expressions_ask_for_metrics_that_the_server_has(dashboard, exposed):
    variables = [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
    asked = re.findall(r"\bflyweight_\w+", " ".join(_expressions(dashboard) + variables))

    assert set(asked) <= exposed


def test_expressions_use_only_the_variables_that_are_there(dashboard):
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    used = {name for text in _expressions(dashboard) for name in re.findall(r"\$\{?(\w+)", text)}

    assert used <= known
    assert {"model", "variant"} <= used


def test_targets_of_a_panel_have_letters_of_their_own(dashboard):
    for panel in _shown(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]
