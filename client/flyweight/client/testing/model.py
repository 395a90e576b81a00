"""A model of the fake server: a function per variant."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flyweight.client.errors import InvalidRequest, NotFound
from flyweight.client.results import Array, TensorInfo
from flyweight.protos.tensors import datatype_of

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class FakeModel:
    """What the fake server knows about a model.

    Attributes:
        variants: the function of each variant, inputs by name to outputs by name. The first one is the
            baseline, and answers what is not pinned. A ValueError becomes INVALID_ARGUMENT.
        inputs: what the metadata says goes in. Requests are checked against it, unless it is empty.
        outputs: what the metadata says comes out.
    """

    variants: Mapping[str, Function]
    inputs: Sequence[TensorInfo] = ()
    outputs: Sequence[TensorInfo] = ()

    def choose(self, name: str, variant: str) -> tuple[str, str, str]:
        """Return the variant that answers, its role and the reason, as flyweight's server names them.

        Raises:
            NotFound: there is no such variant.
        """
        if variant and variant not in self.variants:
            raise NotFound(f"model '{name}' has no variant '{variant}'; it has {', '.join(self.variants)}.")
        if variant:
            return variant, "pinned", "pinned"
        return next(iter(self.variants)), "baseline", "only" if len(self.variants) == 1 else "default"

    def check(self, arrays: Mapping[str, Array]) -> None:
        """Check a request's inputs against the metadata.

        Raises:
            InvalidRequest: an input is missing, unknown, or of another datatype or shape.
        """
        declared = {tensor.name: tensor for tensor in self.inputs}
        if not declared:
            return
        if declared.keys() != arrays.keys():
            raise InvalidRequest(f"the inputs are {', '.join(declared)}, not {', '.join(arrays) or 'none'}.")
        for name, array in arrays.items():
            _check_tensor(declared[name], array)


def _check_tensor(declared: TensorInfo, array: Array) -> None:
    datatype = datatype_of(array)
    if datatype != declared.datatype:
        raise InvalidRequest(f"input '{declared.name}' is {declared.datatype}, not {datatype}.")
    fits = len(declared.shape) == array.ndim and all(
        wanted in (-1, given) for wanted, given in zip(declared.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"input '{declared.name}' has shape {list(declared.shape)}, not {list(array.shape)}."
        )
