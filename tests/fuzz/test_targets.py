"""Every fuzz target, for a moment: its seeds, what was a bug before, and some thousand changes to them."""

import warnings
from itertools import islice
from random import Random

import pytest

from tests.fuzz.engine import load, mutations, target_names

pytestmark = pytest.mark.source

SEED = 1
MUTATIONS = 1500


@pytest.mark.parametrize("name", target_names())
def test_what_nobody_would_send_surprises_nobody(name: str) -> None:
    target = load(name)
    random = Random(SEED)
    with warnings.catch_warnings():
        # numpy's, on a header that Python 2 might have written.
        warnings.simplefilter("ignore")
        for data in (*target.corpus(), *islice(mutations(target, random), MUTATIONS)):
            try:
                target.check(data)
            except Exception as error:
                error.add_note(f"The input is {data!r}.")
                raise
