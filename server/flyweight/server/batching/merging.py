"""Putting the rows of several requests into one run, and giving each its own back. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from flyweight.server.batching.job import Job
from flyweight.server.runtime.seam import Array


def merge(jobs: Sequence[Job]) -> Mapping[str, Array]:
    """Return the inputs of one run for jobs of one kind: their rows one after the other.

    A job alone gets no copy.
    """
    if len(jobs) == 1:
        return jobs[0].inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def split(outputs: Mapping[str, Array], jobs: Sequence[Job]) -> Iterator[Mapping[str, Array]] | None:
    """Return each job's rows of the outputs of a shared run, in the order of the jobs, without copies.

    None when an output does not have a row for each row that went in: then it belongs to no request.
    """
    rows = sum(job.rows for job in jobs)
    if any(array.ndim == 0 or array.shape[0] != rows for array in outputs.values()):
        return None
    return _shares(outputs, jobs)


def _shares(outputs: Mapping[str, Array], jobs: Sequence[Job]) -> Iterator[Mapping[str, Array]]:
    start = 0
    for job in jobs:
        stop = start + job.rows
        yield {name: array[start:stop] for name, array in outputs.items()}
        start = stop
