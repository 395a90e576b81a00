"""Frequency tables and the entropy coder: exact, near the entropy, and the same as a slower form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.coded import CodedError
from flyweight.protos.coded.rans import Decoder, encode_runs, lanes_for
from flyweight.protos.coded.tables import MOST_BITS, Table, fit_table, gap_table, table_of


def test_gaps_are_as_likely_as_chance_makes_them() -> None:
    """With half of the places marked P(g) = 2**-(g+1): of 2**14 slots half are gap 0's, a quarter gap 1's."""
    table = gap_table(50, 100)
    expected = [8185, 4093, 2047, 1024, 513, 257, 129, 65, 33, 17, 9, 5, 3, 2, 2]
    assert table.frequencies.tolist() == expected


@pytest.mark.parametrize(("ones", "size"), [(1, 1), (1, 10**9), (5, 5), (999, 1000), (3, 10_000), (50, 51)])
def test_every_gap_has_a_slot(ones: int, size: int) -> None:
    table = gap_table(ones, size)
    assert table.frequencies.min() >= 1
    assert table.frequencies.sum() == 1 << MOST_BITS


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03, 0.004])
def test_gaps_cost_what_the_entropy_of_the_places_is(share: float) -> None:
    size = 400_000
    places = np.flatnonzero(np.random.default_rng(0).random(size) < share)
    table = gap_table(len(places), size)
    longest = len(table.frequencies) - 1
    gaps = np.diff(places, prepend=-1) - 1
    symbols = np.concatenate([gaps % longest, np.full(int((gaps // longest).sum()), longest)])
    bits = float((MOST_BITS - np.log2(table.frequencies[symbols])).sum())
    p = len(places) / size
    entropy = -size * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert entropy * 0.99 < bits < entropy * 1.01


def test_a_fitted_table_costs_the_entropy_and_its_own_fields() -> None:
    counts = np.array([900, 0, 90, 10])
    table, bits = fit_table(counts)
    assert table.frequencies[1] == 0
    assert table.frequencies.sum() == 1 << table.bits
    entropy = 900 * np.log2(1000 / 900) + 90 * np.log2(1000 / 90) + 10 * np.log2(100)
    assert entropy < bits < entropy + 8 * 6 + 20


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(CodedError, match="do not add up"):
        table_of(4, [8, 7])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=300),
    st.lists(st.integers(0, 3), max_size=50),
    st.integers(1, 30),
)
def test_runs_come_back(first: list[int], second: list[int], repeats: int) -> None:
    runs = []
    for values in (first * repeats, second, first):
        if values:
            symbols = np.array(values)
            runs.append((fit_table(np.bincount(symbols))[0], symbols))
    decoder = Decoder(encode_runs(runs), sum(len(symbols) for _, symbols in runs))
    for table, symbols in runs:
        assert decoder.take(table, len(symbols)).tolist() == symbols.tolist()
    decoder.finish()


def decode_slowly(coded: bytes, table: Table, count: int) -> list[int]:
    """The definition with Python's own numbers, a symbol at a time."""
    lanes = lanes_for(count)
    states = np.frombuffer(coded, "<u8", lanes).tolist()
    words = iter(np.frombuffer(coded, "<u4", offset=8 * lanes).tolist())
    shares, symbols = table.frequencies.tolist(), []
    for index in range(count):
        x = states[index % lanes]
        slot, start, symbol = x % (1 << table.bits), 0, 0
        while slot >= start + shares[symbol]:
            start, symbol = start + shares[symbol], symbol + 1
        x = shares[symbol] * (x >> table.bits) + slot - start
        states[index % lanes] = (x << 32) + next(words) if x < 1 << 31 else x
        symbols.append(symbol)
    return symbols


def test_all_lanes_at_once_decode_what_one_after_the_other_does() -> None:
    symbols = np.random.default_rng(0).binomial(6, 0.3, 5000)
    table, bits = fit_table(np.bincount(symbols))
    coded = encode_runs([(table, symbols)])
    assert decode_slowly(coded, table, 5000) == symbols.tolist()
    assert len(coded) * 8 < bits * 1.01 + 64 * lanes_for(5000)


def test_one_symbol_alone_costs_nothing() -> None:
    constant = Table(4, np.array([0, 16]))
    coded = encode_runs([(constant, np.ones(10**6, dtype=np.int64))])
    assert len(coded) == 8 * lanes_for(10**6)
    assert Decoder(coded, 10**6).take(constant, 3).tolist() == [1, 1, 1]


def test_missing_words_are_noticed() -> None:
    symbols = np.arange(4096) % 16
    table, _ = fit_table(np.bincount(symbols))
    coded = encode_runs([(table, symbols)])
    with pytest.raises(CodedError, match="cut"):
        Decoder(coded[:-400], 4096).take(table, 4096)
    with pytest.raises(CodedError, match="cut"):
        Decoder(coded[:3], 4096)
    decoder = Decoder(coded + bytes(4), 4096)
    decoder.take(table, 4096)
    with pytest.raises(CodedError, match="garbled"):
        decoder.finish()
