"""Send a server one real request and read its metrics; exits with 0 when both are right.

python tests/image/ask.py HOST:PORT METRICS_URL
"""

import sys
import threading
import time
import urllib.request

import numpy as np

from flyweight.client import Client, Unavailable

DEADLINE_SECONDS = 60


def wait_until_ready(client: Client) -> None:
    """Return when the server takes requests; raises Unavailable when it does not in time."""
    nap = threading.Event()
    until = time.monotonic() + DEADLINE_SECONDS
    while not client.is_ready():
        if time.monotonic() > until:
            raise Unavailable("the server was not ready in time.")
        nap.wait(0.2)


def main(address: str, metrics: str) -> None:
    """Ask both variants of the model "tiny" and look for them in the metrics."""
    with Client(address) as client:
        wait_until_ready(client)
        for variant in ("baseline", "int8"):
            prediction = client.predict("tiny", {"x": np.ones((2, 16), np.float32)}, variant=variant)
            assert prediction.variant == variant
            assert prediction.output.shape == (2, 16)
    with urllib.request.urlopen(metrics, timeout=10) as reply:
        text = reply.read().decode()
    for variant in ("baseline", "int8"):
        wanted = f'flyweight_variant_ready{{model="tiny",variant="{variant}"}} 1.0'
        assert wanted in text, f"the metrics do not say {wanted}"


if __name__ == "__main__":
    main(*sys.argv[1:])
