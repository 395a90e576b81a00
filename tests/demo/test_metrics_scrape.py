import pytest

from demo import metrics_scrape

EXPOSITION = """\
# TYPE flyweight_requests_total counter
flyweight_requests_total{model="digits",variant="int8",role="candidate",code="OK"} 40
flyweight_requests_total{model="digits",variant="int8",role="pinned",code="OK"} 2
flyweight_requests_total{model="digits",variant="int8",role="candidate",code="INVALID_ARGUMENT"} 3
flyweight_requests_total{model="other",variant="int8",role="candidate",code="OK"} 7
# TYPE flyweight_request_stage_seconds histogram
flyweight_request_stage_seconds_bucket{model="digits",variant="int8",role="candidate",stage="run",le="+Inf"} 4
flyweight_request_stage_seconds_sum{model="digits",variant="int8",role="candidate",stage="run"} 0.002
flyweight_request_stage_seconds_count{model="digits",variant="int8",role="candidate",stage="run"} 4
# TYPE flyweight_variant_memory_bytes gauge
flyweight_variant_memory_bytes{model="digits",variant="int8",kind="load_pss"} 1.5e+06
flyweight_variant_memory_bytes{model="digits",variant="int8",kind="validated_pss"} 9
flyweight_variant_memory_bytes{model="digits",variant="plain",kind="load_pss"} 1.5e+06
flyweight_variant_memory_bytes{model="other",variant="int8",kind="validated_pss"} 5
# TYPE flyweight_process_memory_bytes gauge
flyweight_process_memory_bytes{kind="pss"} 7e+07
flyweight_process_memory_bytes{kind="uss"} 6e+07
"""


def test_answers_are_added_up_over_roles_for_one_model_and_ok_only() -> None:
    assert metrics_scrape.answered(metrics_scrape.parse(EXPOSITION), "digits") == {"int8": 42}


def test_stage_mean_is_sum_over_count_in_milliseconds() -> None:
    means = metrics_scrape.stage_means_ms(metrics_scrape.parse(EXPOSITION), "digits")
    assert means == {"int8": {"run": pytest.approx(0.5)}}


def test_memory_is_what_was_validated_or_else_what_loading_took() -> None:
    found = metrics_scrape.memory_bytes(metrics_scrape.parse(EXPOSITION), "digits")
    assert found == {"int8": 9, "plain": 1_500_000}


def test_server_memory_is_its_proportional_set_size() -> None:
    assert metrics_scrape.process_memory_bytes(metrics_scrape.parse(EXPOSITION)) == 70_000_000
    assert metrics_scrape.process_memory_bytes(()) is None
