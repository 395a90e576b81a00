"""The error of coded files."""

from flyweight.protos.errors import RepositoryError


class CodedError(RepositoryError):
    """A coded file is not one, is cut, garbled or of a later format, or decodes to more than is allowed."""
