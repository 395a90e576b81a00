"""Making the variants of a search: from memory, from the cache, or anew."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flyweight.compressor.caching import Cache, RecipeCache, was_cut_short
from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.recipe import steps_of
from flyweight.compressor.search.space import make_pass

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

# The beginnings that neighbouring trials share; what is older comes from the cache.
_REMEMBERED: Final = 24


class Builder:
    """Applies recipes to one model; used from one thread.

    Its files lie in a folder of their own, and those that no remembered result needs are removed.
    """

    def __init__(self, source: Model, context: "Context", cache: Cache) -> None:
        workspace = context.workspace / "search"
        workspace.mkdir(parents=True, exist_ok=True)
        self._source = source
        self._context = replace(context, workspace=workspace)
        self.digest = digest_of(source)
        self._memo = Memo(RecipeCache(cache, source, self.digest, self._context), _REMEMBERED)
        self._exported: Path | None = None
        self._training_share = 1.0
        self._cut_short: dict[tuple[Pass, ...], PassResult] = {}

    def baseline(self) -> Path:
        """Return the ONNX file that variants are compared with: the model's own, or its export.

        Raises:
            PassError: the module cannot be exported.
        """
        if self._source.form is Form.ONNX:
            return self._source.onnx_path()
        if self._exported is None:
            made = self._memo.apply(make_pass("export", {}), self._source, self._context).model
            self._exported = made.onnx_path()
        return self._exported

    def build(self, recipe: Pass) -> PassResult:
        """Return what the recipe makes of the model, a file.

        Raises:
            OutOfTimeError: the user's time is up.
            PassError: the recipe fails on this model.
        """
        steps, context = steps_of(recipe), self._taught(recipe)
        if steps not in self._cut_short:
            result = run_foreign(
                lambda: self._memo.apply(recipe, self._source, context),
                lambda reason: PassError(f"The recipe failed on this model ({reason})."),
            )
            if not was_cut_short(result):
                return result
            # No cache has it, and made again it would be another.
            self._cut_short[steps] = result
        return self._cut_short[steps]

    def until(self, deadline: float, training_share: float = 1.0) -> None:
        """Let passes take until `deadline`, by `time.monotonic()`.

        A recipe that trains takes at most `training_share` of the time that is left when it begins.
        """
        self._context = replace(self._context, deadline=deadline)
        self._training_share = training_share

    def tidy(self) -> None:
        """Remove the files of results that are not remembered any more."""
        short = (result.model.path for result in self._cut_short.values())
        kept = {path.parent for path in (*self._memo.paths(), self._exported, *short) if path is not None}
        for folder in self._context.workspace.iterdir():
            if folder.is_dir() and folder not in kept and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)

    def _taught(self, recipe: Pass) -> "Context":
        """Return the context, with the imported original as the teacher of what is trained."""
        steps = [step for step in steps_of(recipe) if step.needs is Form.TORCH]
        if self._context.baseline is None and steps and self._source.form is Form.ONNX:
            imported = self._memo.apply(make_pass("import", {}), self._source, self._context).model
            self._context = replace(self._context, baseline=imported.module)
        trains = any(step.gives is Form.TORCH for step in steps)
        return self._context.within(self._training_share) if trains else self._context


def digest_of(source: Model) -> str:
    """Return the digest of a model's content, ONNX or torch.

    Raises:
        ModelError: an ONNX file cannot be read.
    """
    from flyweight.compressor.caching import digest_of_model

    if source.form is Form.TORCH:
        from flyweight.compressor.search.module_digest import digest_of_module

        return digest_of_module(source.torch_module())
    return digest_of_model(source.onnx_path())
