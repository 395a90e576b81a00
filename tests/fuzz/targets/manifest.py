"""A variant's folder as a stranger fills it: manifest.json, and the session settings that it asks for."""

import json
from functools import cache
from pathlib import Path

from flyweight.protos.errors import FlyweightError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import read_manifest, verify_digests
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.processor import missing_instruction_sets
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_options import make_options, run_options_of
from tests.fuzz.scratch import scratch_folder


@cache
def _folder() -> Path:
    return scratch_folder()


def check(data: bytes) -> None:
    """Read a manifest and begin to follow it; anything but an expected error is a bug."""
    folder = _folder()
    (folder / "manifest.json").write_bytes(data)
    try:
        manifest = read_manifest(folder)
        assert manifest is not None
        missing_instruction_sets(manifest.environment.instruction_sets)
        session = manifest.session
        settings = SessionSettings(session.intra_op_threads, dict(session.config_entries))
        try:
            make_options(settings, 2, "A variant")
            run_options_of(settings)
        except LoadFailed:
            pass
        verify_digests(folder, manifest)
    except FlyweightError:
        return


def seeds() -> list[bytes]:
    """Return manifests that are in order, and almost."""
    documents: list[dict[str, object]] = [
        {"model": "m", "variant": "v", "golden": {"file": "golden.npz"}},
        {
            "session": {
                "intra_op_threads": 2,
                "config_entries": {"session.disable_prepacking": "1", "execution_mode": "1"},
            }
        },
        {
            "session": {
                "config_entries": {
                    "memory.enable_memory_arena_shrinkage": "cpu:0",
                    "inter_op_thread_count": "2",
                    "graph_level": "-1",
                    "enable_mem_arena": "off",
                }
            }
        },
        {"files": [{"path": "model.onnx", "size_bytes": "1", "sha256": "AA=="}]},
        {"files": [{"path": "../x", "size_bytes": 1}], "footprint": {"pss_bytes": 5}},
        {"environment": {"instruction_sets": ["avx2", "x"]}, "unknown": [1, {}]},
    ]
    written = [json.dumps({"format_version": 1, **document}).encode() for document in documents]
    return [*written, b'{"formatVersion": 1}', b"[[[[]]]]", b"null"]


def words() -> list[str]:
    """Return what a manifest is made of."""
    keys = [field.name for field in VariantManifest.DESCRIPTOR.fields]
    inner = [
        field.name
        for outer in VariantManifest.DESCRIPTOR.fields
        if outer.message_type is not None
        for field in outer.message_type.fields
    ]
    return [f'"{name}"' for name in sorted({*keys, *inner, "NaN", "Infinity", "@type"})] + ["1e400", "NaN"]
