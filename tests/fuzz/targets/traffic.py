"""traffic.yaml, and the memory of promotions: from bytes of a file to plans."""

from pathlib import Path

from flyweight.server.errors import TrafficPlanError
from flyweight.server.traffic.choose import choose
from flyweight.server.traffic.plan import parse_plan, resolve, restrict
from flyweight.server.traffic.writing import read_history, render

_PATH = Path("traffic.yaml")
_VARIANTS = ("baseline", "int8", "pruned")
_HISTORY = b"\x01"


def check(data: bytes) -> None:
    """Follow a traffic.yaml; anything but a plan that can be followed or a TrafficPlanError is a bug."""
    text = data[1:].decode("utf-8", "replace")
    try:
        if data[:1] == _HISTORY:
            read_history(text)
            return
        traffic = parse_plan(text, _PATH)
        # What the server writes, it reads.
        assert parse_plan(render(traffic, text), _PATH) == traffic
        plan = resolve(traffic, _VARIANTS, "baseline")
    except TrafficPlanError:
        return
    for fewer in (_VARIANTS, ("baseline",), ("pruned",)):
        left = restrict(plan, fewer, fewer[0])
        assert abs(sum(weight for _, weight in left.weights) - 1.0) < 1e-6
        for uniform in (0.0, 0.5, 1.0 - 2**-53):
            assert choose(left, None, uniform).variant in fewer
        assert choose(left, b"key", 0.0).variant in fewer


def seeds() -> list[bytes]:
    """Return files that people write."""
    texts = [
        b"split: {baseline: 90, int8: 10}\n",
        b"baseline: int8\nsplit:\n  baseline: 50.0\n  int8: 25\n  pruned: 2.5e1\n",
        b"sticky: {parameter: user, metadata: x-user}\nfallback: int8\n",
        b"labels: {stable: baseline, canary: int8}\nbrownout: {to: pruned, above: 0.5}\n",
        b"split: &a {baseline: 1e2}\nlabels: {a: baseline}\n# a comment\n",
        b'fallback: "\\u0069nt8"\n',
        b"",
    ]
    history = b'{"promotions": [{"promoted": "a", "before": "b", "moment": "2026-01-01T00:00:00Z"}]}'
    return [*(b"\0" + text for text in texts), _HISTORY + history]


def words() -> list[str]:
    """Return what a traffic.yaml is made of."""
    keys = [
        "split",
        "baseline",
        "sticky",
        "parameter",
        "metadata",
        "labels",
        "fallback",
        "brownout",
        "to",
        "above",
    ]
    yaml = ["&a", "*a", "<<: *a", '"\\U0010FFFF"', "!!float", "---\n", ".inf", "nan", "1e400", "1_0"]
    return [*keys, *_VARIANTS, *yaml, "promotions", "promoted", "before", "moment"]
