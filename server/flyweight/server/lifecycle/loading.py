"""Bringing up one variant: digests, session, warm-up, golden samples. It is whole or it is nothing."""

import logging
from dataclasses import replace

from flyweight.protos.errors import RepositoryError
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import read_manifest, verify_digests
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.lifecycle.ensembles import Ensembles
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.rehearsal import Rehearsed, rehearse
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.repository.completion import complete
from flyweight.server.repository.config_notes import batching_notes
from flyweight.server.repository.fingerprint import take_fingerprint
from flyweight.server.repository.labels import read_labels
from flyweight.server.repository.model_config import (
    ENSEMBLE,
    is_ensemble,
    parse_model_config,
    require_supported,
)
from flyweight.server.repository.reshaping import reshapes_of
from flyweight.server.repository.scan import CONFIG_FILE
from flyweight.server.repository.scheduling import serving_of
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.repository.session_parameters import with_parameters
from flyweight.server.runtime.processor import processor_doubt
from flyweight.server.runtime.reshaped import ReshapedRuntime
from flyweight.server.runtime.seam import Runtime, RuntimeFactory, SessionSettings
from flyweight.server.sequences import Sequences, hide, sequences_of

_log = logging.getLogger(__name__)


def load_variant(
    source: VariantSource,
    factory: RuntimeFactory,
    intra_op_threads: int = 0,
    ensembles: Ensembles | None = None,
    *,
    gives_way: bool = False,
) -> LoadedVariant:
    """Load a variant; after an error nothing of it is left.

    Args:
        source: what to load.
        factory: makes the runtime.
        intra_op_threads: the operator's word against the manifest's; 0 leaves it to the manifest.
        ensembles: makes the runtimes of ensembles; None refuses them.
        gives_way: whether everything else goes first; the calling thread may then keep a lower priority.

    Raises:
        LoadFailed, RepositoryError: with one sentence that names the file and what to do.
    """
    config = None
    notes: tuple[str, ...] = ()
    if source.config_text is not None:
        config = parse_model_config(source.config_text, source.folder.parent / CONFIG_FILE)
        notes = require_supported(config, source.model)
    if config is not None and is_ensemble(config):
        return _told(_load_ensemble(source, config, ensembles, notes))
    manifest = read_manifest(source.folder)
    if manifest is not None:
        _verify(source, manifest)
        doubt = processor_doubt(manifest.environment.instruction_sets)
        if doubt:
            _log.warning("%s/%s %s", source.model, source.variant, doubt)
    settings = _session_settings(source.model, manifest, config, intra_op_threads)
    bare = factory.load(source.folder / source.model_file, replace(settings, gives_way=gives_way))
    try:
        return _told(_bring_up(source, config, manifest, bare, notes))
    except BaseException:
        bare.close()
        raise


def _told(loaded: LoadedVariant) -> LoadedVariant:
    """Return a variant whose notes were logged."""
    for note in loaded.notes:
        _log.info("%s", note)
    return loaded


def _bring_up(
    source: VariantSource,
    config: ModelConfig | None,
    manifest: VariantManifest | None,
    bare: Runtime,
    notes: tuple[str, ...],
) -> LoadedVariant:
    """Return the variant that a session makes, rehearsed."""
    folder = source.folder.parent
    spec = sequences_of(config, source.model, folder, bare.signature)
    completed, signature = complete(config, source.model, hide(bare.signature, spec, config))
    runtime = _reshaped(bare, completed, source.model)
    serving = rehearse(
        Rehearsed(source, manifest, bare, runtime, signature, spec), completed, serving_of(config, signature)
    )
    labels = read_labels(completed, folder)
    if config is not None:
        notes += batching_notes(config, signature.max_batch_rows, f"The config.pbtxt of {source.model}")
    _require_unchanged(source)
    what = _what(source)
    return LoadedVariant(
        model=source.model,
        name=source.variant,
        signature=signature,
        config=completed,
        manifest=manifest,
        runtime=runtime,
        leases=Leases(what),
        serving=serving,
        labels=labels,
        sequences=None if spec is None else Sequences(spec, what),
        notes=notes,
    )


def _load_ensemble(
    source: VariantSource, config: ModelConfig, ensembles: Ensembles | None, notes: tuple[str, ...]
) -> LoadedVariant:
    if ensembles is None:
        raise LoadFailed(f"{source.model} is an ensemble, and they are not served here.")
    runtime, is_merging = ensembles.load(config, source.model)
    completed, signature = complete(config, source.model, runtime.signature)
    completed.platform, completed.backend, completed.default_model_filename = ENSEMBLE, "", ""
    may_share = is_merging and signature.max_batch_rows > 1
    return LoadedVariant(
        model=source.model,
        name=source.variant,
        signature=signature,
        config=completed,
        manifest=None,
        runtime=_reshaped(runtime, completed, source.model),
        leases=Leases(_what(source)),
        serving=ServingPolicy(
            merging=Merging.MEASURED if may_share else Merging.NEVER, max_rows=signature.max_batch_rows
        ),
        labels=read_labels(completed, source.folder.parent),
        notes=notes,
    )


def _what(source: VariantSource) -> str:
    return f"The variant {source.variant!r} of the model {source.model!r}"


def _reshaped(runtime: Runtime, config: ModelConfig, model: str) -> Runtime:
    reshapes = reshapes_of(config, model)
    return ReshapedRuntime(runtime, reshapes) if reshapes else runtime


def _verify(source: VariantSource, manifest: VariantManifest) -> None:
    verify_digests(source.folder, manifest)
    listed = {entry.path for entry in manifest.files}
    needed = (source.model_file, manifest.golden.file)
    for path in needed:
        if path and path not in listed:
            raise LoadFailed(
                f"{source.folder / path} is not listed in the manifest; publish the variant again."
            )


def _session_settings(
    model: str, manifest: VariantManifest | None, config: ModelConfig | None, intra_op_threads: int
) -> SessionSettings:
    """Return the manifest's settings, overruled by config.pbtxt, and that by the operator."""
    settings = SessionSettings()
    if manifest is not None:
        settings = SessionSettings(manifest.session.intra_op_threads, dict(manifest.session.config_entries))
    if config is not None:
        settings = with_parameters(settings, config, model)
    return replace(settings, intra_op_threads=intra_op_threads) if intra_op_threads else settings


def _require_unchanged(source: VariantSource) -> None:
    """Raise if the folder changed since it was scanned: what was verified may not be what was loaded."""
    try:
        fingerprint = take_fingerprint(source.folder)
    except OSError as error:
        raise RepositoryError(f"{source.folder} vanished while it was loaded ({error.strerror}).") from error
    if fingerprint != source.fingerprint:
        raise RepositoryError(f"{source.folder} changed while it was loaded; it is loaded again.")
