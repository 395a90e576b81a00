"""From the name of a data source to a network with its data."""

from demo import data_digits, data_fashion, data_imagenet
from demo.network import network
from demo.settings import DemoSettings, Source
from demo.task import Task

# A quick run takes so many samples: enough for every class to come up.
_QUICK_ROWS = 240
# Crops of each photograph: enough to tell 1 % apart, few enough to wait for.
_CROPS, _QUICK_CROPS = 12, 3


def load_task(settings: DemoSettings) -> Task:
    """Return the network and the data that the settings ask for.

    Raises:
        DemoDataError: the data are not there and cannot be had.
    """
    loaders = {Source.DIGITS: _digits, Source.FASHION: _fashion, Source.IMAGENET: _imagenet}
    return loaders[settings.source](settings)


def _digits(settings: DemoSettings) -> Task:
    training, evaluation = data_digits.load(settings.seed, _QUICK_ROWS if settings.quick else None)
    return Task(data_digits.DESCRIPTION, training, evaluation, network(settings.seed))


def _fashion(settings: DemoSettings) -> Task:
    rows = (_QUICK_ROWS, _QUICK_ROWS) if settings.quick else data_fashion.ROWS
    training, evaluation = data_fashion.load(settings.data_folder, settings.seed, *rows)
    return Task(data_fashion.DESCRIPTION, training, evaluation, network(settings.seed))


def _imagenet(settings: DemoSettings) -> Task:
    crops = _QUICK_CROPS if settings.quick else _CROPS
    training, evaluation, module = data_imagenet.load(settings.data_folder, settings.seed, crops)
    notes = (data_imagenet.NOTE,)
    return Task(data_imagenet.DESCRIPTION, training, evaluation, module, trained=True, notes=notes)
