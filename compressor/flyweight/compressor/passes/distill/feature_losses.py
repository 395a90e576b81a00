"""Losses between the features of a student and those of its teacher."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.distill.features import Pair


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of features of one shape, relative to the variance of the teacher's.

    Romero et al. 2015, "FitNets", equation 3, is 1/2 ||teacher - regressor(student)||^2; as a mean over all
    numbers and relative to their variance it has the same scale in every layer, 1 for a student that only
    knows the mean.
    """
    return F.mse_loss(student, teacher) / teacher.var(correction=0).clamp_min(1e-6)


def attention_map(features: Tensor, axis: int) -> Tensor:
    """Return sum_c |A_c|^2 over the channels, flattened, and divided by its L2 norm: shape (rows, places).

    Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", F_sum^2 of section 3.1 and the
    normalisation of equation 2.
    """
    return F.normalize(features.pow(2).sum(dim=axis).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor, axis: int) -> Tensor:
    """Return ||Q_S / ||Q_S|| - Q_T / ||Q_T|| ||^2 / 2, averaged over the rows.

    Zagoruyko and Komodakis 2017, equation 2 with p = 2; squared, as in their experiments, because the norm
    itself has no gradient where student and teacher agree. It is 1 - cos of the two maps: from 0 to 1.
    """
    difference = attention_map(student, axis) - attention_map(teacher, axis)
    return difference.pow(2).sum(dim=1).mean() / 2


class Regressors(nn.Module):
    """Maps the student's channels to the teacher's, one linear map for each pair whose numbers differ.

    FitNets, section 2.2; a linear map at every place is a convolution of 1x1, the smallest that fits.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Identity() if pair.channels[0] == pair.channels[1] else nn.Linear(*pair.channels)
            for pair in pairs
        )
        self.axes = [pair.axis for pair in pairs]

    def translate(self, index: int, features: Tensor) -> Tensor:
        """Return the student's features of pair `index` with as many channels as the teacher's."""
        last = features.movedim(self.axes[index], -1)
        translated: Tensor = self.maps[index](last)
        return translated.movedim(-1, self.axes[index])


def both(pair: Pair, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the features of a pair.

    Raises:
        PassError: a layer was not reached in this run.
    """
    if pair.student not in own or pair.teacher not in theirs:
        raise PassError(f"The layer {pair.student!r} is not always run; leave it out of the hints.")
    return own[pair.student], theirs[pair.teacher].detach()
