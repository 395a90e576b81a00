"""Bringing up one variant: digests, session, warm-up, golden samples. It is whole or it is nothing."""

import logging
from dataclasses import replace

from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import read_manifest, verify_digests
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.repository.completion import complete
from flyweight.server.repository.fingerprint import take_fingerprint
from flyweight.server.repository.model_config import parse_model_config, require_supported
from flyweight.server.repository.scan import CONFIG_FILE
from flyweight.server.runtime.golden import check_golden, warm_up
from flyweight.server.runtime.processor import missing_instruction_sets
from flyweight.server.runtime.seam import Runtime, RuntimeFactory, SessionSettings, Signature

_log = logging.getLogger(__name__)


def load_variant(source: VariantSource, factory: RuntimeFactory, intra_op_threads: int = 0) -> LoadedVariant:
    """Load a variant; after an error nothing of it is left.

    Args:
        source: what to load.
        factory: makes the runtime.
        intra_op_threads: the operator's word against the manifest's; 0 leaves it to the manifest.

    Raises:
        LoadFailed, RepositoryError: with one sentence that names the file and what to do.
    """
    config = None
    if source.config_text is not None:
        config = parse_model_config(source.config_text, source.folder.parent / CONFIG_FILE)
        for note in require_supported(config, source.model):
            _log.info("%s", note)
    manifest = read_manifest(source.folder)
    if manifest is not None:
        _verify(source, manifest)
        _note_processor(source, manifest)
    settings = _session_settings(manifest, intra_op_threads)
    runtime = factory.load(source.folder / source.model_file, settings)
    try:
        completed, signature = complete(config, source.model, runtime.signature)
        _rehearse(source, manifest, runtime, signature)
        _require_unchanged(source)
    except BaseException:
        runtime.close()
        raise
    leases = Leases(f"The variant {source.variant!r} of the model {source.model!r}")
    return LoadedVariant(source.model, source.variant, signature, completed, manifest, runtime, leases)


def _verify(source: VariantSource, manifest: VariantManifest) -> None:
    verify_digests(source.folder, manifest)
    listed = {entry.path for entry in manifest.files}
    needed = (source.model_file, manifest.golden.file)
    for path in needed:
        if path and path not in listed:
            raise LoadFailed(
                f"{source.folder / path} is not listed in the manifest; publish the variant again."
            )


def _note_processor(source: VariantSource, manifest: VariantManifest) -> None:
    missing = missing_instruction_sets(manifest.environment.instruction_sets)
    if missing:
        _log.warning(
            "%s/%s was measured on a processor with %s, which this one lacks; expect other speed, and other "
            "answers within its golden tolerance.",
            source.model,
            source.variant,
            ", ".join(missing),
        )


def _session_settings(manifest: VariantManifest | None, intra_op_threads: int) -> SessionSettings:
    settings = SessionSettings()
    if manifest is not None:
        settings = SessionSettings(manifest.session.intra_op_threads, dict(manifest.session.config_entries))
    return replace(settings, intra_op_threads=intra_op_threads) if intra_op_threads else settings


def _rehearse(
    source: VariantSource, manifest: VariantManifest | None, runtime: Runtime, signature: Signature
) -> None:
    """Run the session before anybody waits for it, and see that it answers as when it was published."""
    if manifest is not None and manifest.golden.file:
        check_golden(runtime, source.folder, manifest.golden)
        return
    failed = warm_up(runtime, signature)
    if failed:
        _log.info("%s/%s was not warmed up with zeros: %s", source.model, source.variant, failed)


def _require_unchanged(source: VariantSource) -> None:
    """Raise if the folder changed since it was scanned: what was verified may not be what was loaded."""
    try:
        fingerprint = take_fingerprint(source.folder)
    except OSError as error:
        raise RepositoryError(f"{source.folder} vanished while it was loaded ({error.strerror}).") from error
    if fingerprint != source.fingerprint:
        raise RepositoryError(f"{source.folder} changed while it was loaded; it is loaded again.")
