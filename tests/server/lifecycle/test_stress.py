"""Many requests while variants are swapped: none ever meets a closed runtime, and none is refused."""

import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.policy import Action, Kind
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, lease_from
from flyweight.server.repository.fingerprint import Fingerprint
from flyweight.server.runtime.fake import FAKE_SIGNATURE, FakeRuntime

if TYPE_CHECKING:
    from conftest import Bench

X = np.ones((1, 4), np.float32)
SWAPS = 400
READERS = 8


def test_no_request_ever_sees_a_closed_runtime(bench: "Bench") -> None:
    stop, wrong, answered = threading.Event(), list[BaseException](), [0] * READERS

    def put(variant: str) -> None:
        source = VariantSource("m", variant, Path("/r"), "model.onnx", Fingerprint(), None)
        runtime, leases = FakeRuntime(), Leases(variant)
        loaded = LoadedVariant("m", variant, FAKE_SIGNATURE, ModelConfig(), None, runtime, leases)
        bench.worker.retire(bench.board.put_loaded(Action(Kind.LOAD, "m", variant, source), loaded, 0.0))

    def read(number: int) -> None:
        chance = random.Random(number)

        def pick(table: RoutingTable) -> tuple[LoadedVariant, None]:
            served = table.model("m")
            return served.variant(chance.choice(sorted(served.variants))), None

        try:
            while not stop.is_set():
                with lease_from(lambda: bench.table, pick) as held:
                    held.runtime.run({"x": X})
                answered[number] += 1
        except BaseException as error:  # noqa: BLE001 -- carried to the test's own thread
            wrong.append(error)

    put("stays")
    readers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for reader in readers:
        reader.start()
    chance = random.Random(7)
    for number in range(SWAPS):
        variant = f"v{chance.randrange(3)}"
        if chance.random() < 0.7:
            put(variant)
        else:
            bench.worker.retire(bench.board.take_out(("m", variant)))
        if number % 10 == 0:
            put("stays")
        bench.worker.close_idle()
    stop.set()
    for reader in readers:
        reader.join(30)
    bench.worker.close_idle()
    assert not wrong
    assert min(answered) > 0
    assert bench.board.is_drained()
    unloads = sum(line.startswith("unload") for line in bench.diary.lines)
    loads = sum(line.startswith("load") for line in bench.diary.lines)
    assert loads - unloads == sum(len(model.variants) for model in bench.board.table.models.values())
