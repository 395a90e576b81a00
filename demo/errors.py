"""What can go wrong in the demo, each told in one sentence."""

from flyweight.protos.errors import FlyweightError


class DemoError(FlyweightError):
    """The demo could not show what it promises; the command ends with 1."""


class DemoDataError(DemoError):
    """The data are not there, or are not what they should be; the command ends with 2."""
