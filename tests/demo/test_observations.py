from pathlib import Path

import numpy as np
import pytest

from demo import observations
from demo.errors import DemoError
from demo.live import Experiment, Observed
from demo.metrics_scrape import Sample
from demo.split import Cast
from demo.task import IMAGE
from demo.traffic import Answer
from flyweight.compressor.data import DataSet
from flyweight.compressor.report.traffic import Serving

DATA = DataSet({IMAGE: np.zeros((2, 1, 2, 2), np.float32)}, np.zeros(2, np.int64))
EXPERIMENT = Experiment("digits", Path(), Path(), Cast(("int8",), "late"), DATA, 1.0, 0)
ANSWERS = (
    Answer(0.1, 0.002, "baseline", "baseline", correct=True),
    Answer(0.6, 0.004, "int8", "candidate", correct=False),
    Answer(1.0, 0.001, "late", "candidate", correct=True),
    Answer(1.2, 0.003, "late", "candidate", correct=True),
)


def counter(variant: str, value: float) -> Sample:
    labels = {"model": "digits", "variant": variant, "role": "x", "code": "OK"}
    return Sample("flyweight_requests_total", labels, value)


METRICS = (counter("baseline", 1), counter("int8", 1), counter("late", 2))


def observed(answers: tuple[Answer, ...] = ANSWERS, metrics: tuple[Sample, ...] = METRICS) -> Observed:
    return Observed(answers, published_at=0.5, ready_at=0.9, seconds=1.5, metrics=metrics)


def test_a_good_run_passes() -> None:
    observations.check(EXPERIMENT, observed())


def test_a_failed_request_fails_the_demo() -> None:
    broken = (*ANSWERS, Answer(1.3, 0.1, failure="it broke"))
    with pytest.raises(DemoError, match=r"1 of 5 requests failed; the first one: it broke"):
        observations.check(EXPERIMENT, observed(broken))


def test_a_variant_that_answered_nothing_fails_the_demo() -> None:
    with pytest.raises(DemoError, match="late answered nothing"):
        observations.check(EXPERIMENT, observed(ANSWERS[:2], METRICS[:2]))


def test_a_server_that_counted_otherwise_fails_the_demo() -> None:
    with pytest.raises(DemoError, match="metrics say"):
        observations.check(EXPERIMENT, observed(metrics=(counter("baseline", 5), *METRICS[1:])))


def test_the_part_is_what_the_report_reads() -> None:
    part = Serving.model_validate(observations.serving_part(EXPERIMENT, observed()))
    assert part.requests == 4
    assert part.variants["late"].share == 0.5
    assert part.variants["late"].p50_ms == pytest.approx(2.0)
    assert part.variants["int8"].accuracy == 0.0
    assert part.hot_load is not None
    assert part.hot_load.requests_during == 1
    assert part.hot_load.seconds_to_ready == pytest.approx(0.4)


def test_timeline_counts_each_answer_in_the_bucket_in_which_it_came() -> None:
    assert observations.timeline(ANSWERS, 1.5, 0.5) == [
        (0.0, {"baseline": 1}),
        (0.5, {"int8": 1}),
        (1.0, {"late": 2}),
    ]
