"""A variant's folder on disk: its name, its manifest, its digests, its golden samples, its atomic publishing.

    repository/<model>/<variant>/   model.onnx [model.onnx.data] [golden.npz] manifest.json
    repository/<model>/<variant>/   model.onnx.fw [golden.npz] manifest.json

The second holds a coded file (flyweight.protos.coded), which the server decodes when it loads the variant.
The compressor writes such folders and the server reads them; neither knows the other.
"""

from flyweight.protos.variant.digests import verify_digests
from flyweight.protos.variant.golden import GOLDEN_FILE, GoldenSamples, read_golden, write_golden
from flyweight.protos.variant.manifest import MANIFEST_FILE, read_manifest
from flyweight.protos.variant.names import MODEL_FILE, is_valid_name, require_valid_name
from flyweight.protos.variant.publishing import publish_variant

__all__ = [
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "GoldenSamples",
    "is_valid_name",
    "publish_variant",
    "read_golden",
    "read_manifest",
    "require_valid_name",
    "verify_digests",
    "write_golden",
]
