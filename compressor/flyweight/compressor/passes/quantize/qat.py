"""Quantization-aware training: a network learns with the rounding it will be served with."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.lesson import describe_training, lesson_for
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.passes.quantize.fake_quantization import WEIGHTED, fake_quantized
from flyweight.compressor.passes.quantize.grids import MOST_BITS
from flyweight.compressor.training import TrainingSettings, train

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()
# A tenth of the rate of training from scratch: the weights are nearly right, and rounding makes noise.
GENTLE: Final = TrainingSettings(epochs=4, learning_rate=2e-4)


@dataclass(frozen=True, slots=True)
class QuantizationAwareTraining(Pass):
    """Trains a module that rounds its weights and its layers' inputs as the quantized graph will.

    Jacob et al. 2018, section 3: rounding is simulated on the way forward and ignored on the way back; the
    original teaches, and labels where there are any. The weights that come out lie on their grids, for each
    output channel max|w| / (2**(bits-1) - 1) apart, so that `export, static-int8` stores just these; with
    fewer bits, `export, simulate` with the same bits does.

    Attributes:
        bits: of a weight, 2 to 8.
        activation_bits: of what a layer reads, 2 to 8; 0 leaves it in floating point.
        training: how long and how fast.
        distillation: how much the original counts.
    """

    name: ClassVar[str] = "qat"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    bits: int = 8
    activation_bits: int = 8
    training: TrainingSettings = GENTLE
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        if not 2 <= self.bits <= MOST_BITS:
            raise RecipeError(f"bits is from 2 to {MOST_BITS} for training, not {self.bits}.")
        if self.activation_bits != 0 and not 2 <= self.activation_bits <= MOST_BITS:
            raise RecipeError(f"activation_bits is 0, or from 2 to {MOST_BITS}, not {self.activation_bits}.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a trained copy of the module.

        Raises:
            PassError: it has no layer to quantize, there is nothing to learn from, or training diverged.
            OutOfTimeError: the deadline came before the first epoch was done.
        """
        module = copy.deepcopy(model.torch_module())
        if not any(isinstance(layer, WEIGHTED) for layer in module.modules()):
            raise PassError("The module has no convolution or linear layer to quantize.")
        lesson = lesson_for(model, context)
        loss = TrainingLoss(self.distillation, self.training.label_smoothing)
        with fake_quantized(module, self.bits, self.activation_bits) as layers:
            trained = train(module, lesson.rows, loss, self.training, context)
        inputs = f"inputs of {self.activation_bits} bits" if self.activation_bits else "inputs as they are"
        note = f"{layers} layers learned with weights of {self.bits} bits and {inputs}."
        notes = (note, *describe_training(lesson, trained, self.training.epochs))
        return PassResult(replace(model, module=module.eval()), changed=True, notes=notes)
