"""The parameters of RepositoryModelLoad and RepositoryModelUnload (Triton's model repository extension).

`config` is the JSON form of a model's configuration, and takes the place of the one in the repository.
`file:<version>/<name>` is the content of a file; with files, which need `config` beside them, nothing of the
model's folder in the repository is used. `unload_dependents` has nothing to do here: a model is served for
its own sake, and an ensemble's steps stay.
"""

from collections.abc import Mapping
from typing import Final

from google.protobuf import json_format, text_format

from flyweight.protos.inference.grpc_service_pb2 import ModelRepositoryParameter
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.variant import is_valid_name
from flyweight.server.errors import InvalidRequest
from flyweight.server.lifecycle.overlay import Upload
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS

_CONFIG: Final = "config"
_FILE: Final = "file:"
_DEPENDENTS: Final = "unload_dependents"

# A version's folder, folders in it, and the file's name: nobody has more.
_MOST_PARTS: Final = 4
_MOST_FILES: Final = 256


def read_upload(parameters: Mapping[str, ModelRepositoryParameter]) -> Upload | None:
    """Return what comes with a load; None when it is the repository's model that is to be loaded.

    Raises:
        InvalidRequest: a parameter is unknown, of another type, or names a path that could leave its folder.
    """
    for name in parameters:
        if name != _CONFIG and not name.startswith(_FILE):
            raise InvalidRequest(
                f"A load has no parameter {name!r}; it has 'config' and 'file:<version>/<file name>'."
            )
    files = {_path(name): _bytes(name, value) for name, value in parameters.items() if name.startswith(_FILE)}
    if len(files) > _MOST_FILES:
        raise InvalidRequest(f"The load brings {len(files)} files; {_MOST_FILES} are the most.")
    if _CONFIG in parameters:
        return Upload(_config(parameters[_CONFIG]), files)
    if files:
        raise InvalidRequest("The load brings files and no 'config'; send the model's configuration too.")
    return None


def require_known(parameters: Mapping[str, ModelRepositoryParameter]) -> None:
    """Raise if an unload has a parameter that there is not.

    Raises:
        InvalidRequest: it has.
    """
    for name, value in parameters.items():
        if name != _DEPENDENTS or value.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidRequest(
                f"An unload has no parameter {name!r} of that type; it has '{_DEPENDENTS}', true or false."
            )


def _path(name: str) -> str:
    parts = name.removeprefix(_FILE).split("/")
    if not 2 <= len(parts) <= _MOST_PARTS or not all(is_valid_name(part) for part in parts):
        raise InvalidRequest(
            f"The parameter {name!r} names no file in a version's folder; write 'file:1/model.onnx', with "
            "names of letters, digits, '.', '_' or '-' that begin with a letter or a digit."
        )
    return "/".join(parts)


def _bytes(name: str, value: ModelRepositoryParameter) -> bytes:
    if value.WhichOneof("parameter_choice") != "bytes_param":
        raise InvalidRequest(f"The parameter {name!r} must be bytes_param, the file's content.")
    return value.bytes_param


def _config(value: ModelRepositoryParameter) -> str:
    """Return the text form of a configuration in JSON."""
    text = value.string_param
    if value.WhichOneof("parameter_choice") != "string_param" or len(text) > LARGEST_TEXT_CHARACTERS:
        raise InvalidRequest(
            f"The parameter 'config' must be a string of at most {LARGEST_TEXT_CHARACTERS} characters."
        )
    try:
        config = json_format.Parse(text, ModelConfig())
    except json_format.ParseError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InvalidRequest(
            f"The parameter 'config' is not the JSON form of a model's configuration ({reason}); correct it."
        ) from error
    return text_format.MessageToString(config)
