"""A server for tests: the real protocol over a real loopback port, answered by Python functions.

Example:
    from flyweight.client import Client
    from flyweight.client.testing import serve_fake

    with serve_fake({"double": lambda inputs: {"y": inputs["x"] * 2}}) as server:
        with Client(server.address) as client:
            assert client.predict("double", {"x": x}).output.tolist() == (x * 2).tolist()
        assert server.requests[0].model_name == "double"
"""

from flyweight.client.testing.faults import Fault
from flyweight.client.testing.model import FakeModel, Function
from flyweight.client.testing.server import FakeServer, Received, serve_fake

__all__ = ["FakeModel", "FakeServer", "Fault", "Function", "Received", "serve_fake"]
