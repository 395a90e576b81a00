"""Labels given as rows of zeros with a single one, as many frameworks make them: classes, not values.

Rows like these are classes where nothing else can be meant: some output of floats has their shape, its scores
then, and none has an axis more, in which case each number of a row would be a class of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from flyweight.compressor.data import DataSet, check_usable
from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Model
from flyweight.compressor.options import Options
from flyweight.compressor.passes.base import Form
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.storage import Array, chunks

_NOTE: Final = "The labels are one-hot rows and were read as classes: the place of the one in each."
Shape = tuple[int, ...]


def read_labels(source: Model, data: DataSet, options: Options) -> tuple[DataSet, Options, tuple[str, ...]]:
    """Return data and options with classes for labels where they are one-hot, and what to say of it.

    Raises:
        ModelError: the model cannot run on the first sample.
        DataError: all labels are one class.
    """

    def scores() -> list[Shape]:
        return _answer_shapes(source, data, options.output)

    judging = with_classes(data, scores)
    check_usable(judging)
    training = None if options.training is None else with_classes(options.training, scores)
    if judging is data and training is options.training:
        return data, options, ()
    return judging, replace(options, training=training), (_NOTE,)


def with_classes(data: DataSet, scores: Callable[[], Sequence[Shape]]) -> DataSet:
    """Return the data with the places of the ones for labels, where these are one-hot; else the data itself.

    The digest stays that of what the user gave.

    Args:
        data: with labels or without.
        scores: asks the model for the shapes of its answers to one sample, of every output of floats that
            labels may belong to; called only where labels look one-hot.
    """
    labels = data.labels
    axes = [] if labels is None else _one_hot_axes(labels)
    if labels is None or len(axes) != 1:
        return data
    given, shapes = labels.shape[1:], scores()
    if given not in shapes or any(_classifies_each(shape, given) for shape in shapes):
        return data
    return DataSet(data.inputs, labels.argmax(axis=axes[0]).astype(np.int64), data.digest)


def _classifies_each(shape: Shape, given: Shape) -> bool:
    """Tell whether an output has scores, first or last, for each of the given numbers."""
    return len(shape) == len(given) + 1 and given in {shape[1:], shape[:-1]}


def _one_hot_axes(labels: Array) -> list[int]:
    """Return the axes, first and last of a sample's, along which there are zeros and a single one."""
    return [axis for axis in sorted({1, labels.ndim - 1} - {0}) if _is_one_hot(labels, axis)]


def _is_one_hot(labels: Array, axis: int) -> bool:
    return (
        axis < labels.ndim
        and labels.shape[axis] >= 2
        and all(
            bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=axis) == 1).all())
            for rows in chunks(labels)
        )
    )


def _answer_shapes(source: Model, data: DataSet, output: str | None) -> list[Shape]:
    """Return the shapes of a model's answers to one sample, of its outputs of floats or the one named."""
    if source.form is Form.TORCH:
        import torch

        from flyweight.compressor.torch_model import outputs_of

        with torch.no_grad():
            found = outputs_of(source.torch_module()(*map(torch.as_tensor, source.example.values())))
        answers = {name: value.numpy() for name, value in zip(source.output_names, found, strict=True)}
        batched = True
    else:
        session = Session(source.onnx_path(), SessionSettings(optimise=False))
        layout = fit(data, session.signature)
        answers = session.run(layout.sample_feed(data, layout.rows or 1))
        batched = bool(layout.batched)
    return [
        value.shape[1:] if batched else value.shape
        for name, value in answers.items()
        if value.dtype.kind == "f" and output in (None, name)
    ]
