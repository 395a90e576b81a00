from flyweight.server.errors import Code
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.tallies import ROWS_BUCKETS, Tallies

INT8 = Answerer("tiny", "int8", "candidate")


def test_every_number_of_rows_falls_into_the_bucket_that_holds_it() -> None:
    for rows in (0, 1, 2, 3, 4, 5, 511, 512, 513, 10_000):
        tallies = Tallies()
        tallies.record(Record(answerer=INT8, rows=rows))
        (tally,) = tallies._tallies.values()
        place = tally.rows_counts.index(1)
        assert place == len(ROWS_BUCKETS) or rows <= ROWS_BUCKETS[place]
        assert place == 0 or rows > ROWS_BUCKETS[place - 1]


def test_what_the_cache_answered_is_told_apart() -> None:
    tallies = Tallies()
    for hit in (True, False):
        record = Record(answerer=INT8, rows=2, decode_seconds=1, encode_seconds=2, total_seconds=4)
        record.cache_hit = hit
        if not hit:
            record.run_seconds, record.batch_rows, record.leads_run = 8, 2, True
        tallies.record(record)
    totals = tallies.totals()["tiny", "int8"]
    assert (totals.success, totals.rows, totals.cache_hits, totals.cache_misses) == (2, 2, 1, 1)
    assert totals.seconds == {"decode": 2, "queue": 0, "run": 8, "encode": 4, "total": 8}
    assert totals.cached_seconds == {"decode": 1, "queue": 0, "run": 0, "encode": 2, "total": 4}


def test_batches_of_every_role_are_added_up() -> None:
    tallies = Tallies()
    for role in ("baseline", "candidate"):
        record = Record(answerer=INT8._replace(role=role), batch_rows=3, batch_requests=2, leads_run=True)
        record.run_seconds = 5
        tallies.record(record)
    batches = tallies.totals()["tiny", "int8"].batches
    assert {rows: (batch.runs, batch.run_seconds) for rows, batch in batches.items()} == {3: (2, 10)}


def test_failures_are_counted_with_their_time_and_the_moment() -> None:
    tallies = Tallies(wall_clock=lambda: 77.0)
    tallies.record(Record(answerer=INT8, code=Code.INTERNAL, total_seconds=3))
    totals = tallies.totals()["tiny", "int8"]
    assert (totals.failures, totals.failed_seconds) == ({Code.INTERNAL: 1}, 3)
    assert (totals.success, totals.last_unix_seconds) == (0, 77.0)


def test_who_is_dropped_in_flight_ends_like_any_other() -> None:
    tallies = Tallies()
    tallies.begin(INT8)
    tallies.drop("tiny", "int8")
    tallies.end(INT8)
    tallies.begin(INT8)
    tallies.end(INT8)
    assert [tally.in_flight for tally in tallies._tallies.values()] == [0]
