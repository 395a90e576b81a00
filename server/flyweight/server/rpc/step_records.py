"""Counts the steps of ensembles as requests to the models that answer them, as Triton does."""

from flyweight.server.errors import Code, code_of
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.runtime.ensemble import StepRun


class StepRecords:
    """Adds each step to the tallies. Thread-safe."""

    def __init__(self, models: Models, tallies: Tallies) -> None:
        self._models = models
        self._tallies = tallies

    def record(self, step: StepRun) -> None:
        """Count a step; that of a model which has gone meanwhile is counted nowhere, as its figures are.

        One run for several callers of the ensemble is one request to the step. Its tensors never leave the
        server, so there is nothing to decode or encode.
        """
        served = self._models.table.models.get(step.model)
        if served is None:
            return
        code = Code.OK if step.error is None else code_of(step.error) or Code.INTERNAL
        self._tallies.record(
            Record(
                answerer=Answerer(step.model, step.variant, served.role_of(step.variant).value),
                code=code,
                rows=step.rows,
                batch_rows=step.rows,
                batch_requests=1,
                leads_run=step.error is None,
                queue_seconds=step.queue_seconds,
                run_seconds=step.run_seconds,
                total_seconds=step.seconds,
            )
        )
