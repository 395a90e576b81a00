"""Whether a published variant is what its manifest says, and comes from the baseline that lies beside it."""

from pathlib import Path
from typing import Final

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant.digests import verify_digests
from flyweight.protos.variant.manifest import MANIFEST_FILE, read_manifest
from flyweight.protos.variant.names import MODEL_FILE, is_valid_name

# Our own notes beside the files that are served begin with a dot.
_HIDDEN: Final = "."


def lineage_faults(folder: Path) -> tuple[str, ...]:
    """Return what is wrong with a variant's lineage, a sentence each; empty when all of it holds.

    Checked are: the digest of every file that the manifest lists; that no other file lies in the folder; that
    the folder's name and the model's are the manifest's; that the parent is there and has the digest that the
    variant was derived from; and that a derived variant names its recipe and its data. Digests show accidents
    and careless exchange; they are not signatures: whoever can write the folder can write the manifest.

    Args:
        folder: repository/<model>/<variant>.
    """
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        return (str(error),)
    if manifest is None:
        return (f"{folder} has no {MANIFEST_FILE}, so nobody can say where it comes from.",)
    faults = list[str]()
    try:
        verify_digests(folder, manifest)
    except ManifestError as error:
        faults.append(str(error))
    faults += _names(folder, manifest)
    faults += _strangers(folder, manifest)
    if manifest.lineage.parent:
        faults += _parent(folder, manifest)
    return tuple(faults)


def _names(folder: Path, manifest: VariantManifest) -> list[str]:
    said, found = f"{manifest.model}/{manifest.variant}", f"{folder.parent.name}/{folder.name}"
    if said == found:
        return []
    return [f"{folder} calls itself {said} in its manifest: it was copied or renamed by hand."]


def _strangers(folder: Path, manifest: VariantManifest) -> list[str]:
    listed = {entry.path for entry in manifest.files} | {MANIFEST_FILE}
    present = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [
        f"{folder / path} is not listed in the manifest; remove it or publish the variant again."
        for path in sorted(present)
        if path.as_posix() not in listed and not path.parts[0].startswith(_HIDDEN)
    ]


def _parent(folder: Path, manifest: VariantManifest) -> list[str]:
    lineage, parent = manifest.lineage, folder.parent / manifest.lineage.parent
    missing = [name for name in ("recipe", "data_sha256", "parent_sha256") if not getattr(lineage, name)]
    faults = [f"The manifest of {folder} does not say its {name}." for name in missing]
    if not is_valid_name(lineage.parent):
        return [
            *faults,
            f"{folder} says that it was derived from {lineage.parent!r}, which names no variant.",
        ]
    try:
        theirs = read_manifest(parent)
    except ManifestError as error:
        return [*faults, str(error)]
    if theirs is None:
        return [*faults, f"{folder} was derived from {lineage.parent!r}, which is not in {folder.parent}."]
    digests = {entry.path: entry.sha256 for entry in theirs.files}
    if lineage.parent_sha256 and digests.get(MODEL_FILE) != lineage.parent_sha256:
        faults.append(
            f"{folder} was derived from another {lineage.parent!r} than the one in {parent}; "
            "compress that one again, or remove the variant."
        )
    return faults
