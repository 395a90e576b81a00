"""Why a variant is what it is, as the JSON document has it."""

from pydantic import Field

from flyweight.compressor.report.part import Part


class Layer(Part):
    """What changed in one layer."""

    name: str
    operator: str = ""
    parameters: int = 0
    baseline_parameters: int | None = None
    bits: int = 32
    zeros: float = 0.0
    snr_db: float | None = None


class Flip(Part):
    """A sample that is answered otherwise; `picture` is a data URI or empty."""

    sample: int
    label: int | None = None
    baseline: int
    variant: int
    picture: str = Field(default="", pattern=r"^(data:image/png;base64,[A-Za-z0-9+/=]*)?$")


class Flips(Part):
    """All samples that are answered otherwise."""

    count: int = 0
    harmed: int | None = None
    mended: int | None = None
    moves: tuple[tuple[int, int, int], ...] = ()
    samples: tuple[Flip, ...] = ()


class Saliency(Part):
    """Whether a variant looks at the same places."""

    correlation: float
    lowest: float
    samples: int


class Finding(Part):
    """Why a variant is not faster, and what to do."""

    finding: str
    nodes: tuple[str, ...] = ()
    share: float | None = None
    remedy: str = ""


class Explanation(Part):
    """Why a variant is what it is."""

    layers: tuple[Layer, ...] = ()
    flips: Flips | None = None
    saliency: Saliency | None = None
    audit: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
