"""ModelInfer: one request, from its bytes to the response's bytes; `rpc.request` has the way between."""

from flyweight.server.rpc.border import attempt
from flyweight.server.rpc.call import Body, Call, Reply
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.request import Encode, Request, plain


class Inference:
    """Answers ModelInfer. Thread-safe; owns nothing but what it is given."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def model_infer(self, body: Body, call: Call, reply: Reply) -> None:
        """Have a ModelInferRequest answered."""
        self.infer(body, call, reply, plain)

    def infer(self, body: Body, call: Call, reply: Reply, encode: Encode) -> None:
        """Have a ModelInferRequest answered in the form that `encode` gives."""
        request = Request(self._inside, call, reply, encode)
        failure = attempt(lambda: request.begin(body))
        if failure is not None:
            request.fail(failure)
