"""The errors that the contracts raise, and the root of every error that flyweight expects.

FlyweightError                  one sentence: what is wrong, and what to do
├── RepositoryError             the model repository cannot be read or written
│   ├── ManifestError           a variant's folder contradicts its manifest
│   └── CodedError              a coded model, model.onnx.fw, cannot be decoded (flyweight.protos.coded)
└── TensorError                 bytes and the tensor they are said to hold disagree

Commands print the sentence and exit with 2; the server maps its own subtree to gRPC status codes.
Anything else that is raised is a bug and keeps its traceback.
"""


class FlyweightError(Exception):
    """An expected failure, whose text is one sentence that names the thing and says what to do."""


class RepositoryError(FlyweightError):
    """The model repository, or a folder in it, cannot be read or written as asked."""


class ManifestError(RepositoryError):
    """A variant's folder does not hold what its manifest says."""


class TensorError(FlyweightError):
    """A tensor's bytes, type, shape or name do not fit together."""
