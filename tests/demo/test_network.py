import pytest

torch = pytest.importorskip("torch")

from demo.network import network  # noqa: E402 -- it needs torch

pytestmark = pytest.mark.torch


def weights(seed: int) -> "torch.Tensor":
    return torch.cat([parameter.detach().flatten() for parameter in network(seed).parameters()])


def test_the_same_seed_draws_the_same_weights() -> None:
    assert torch.equal(weights(3), weights(3))


def test_another_seed_draws_others() -> None:
    assert not torch.equal(weights(3), weights(4))


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    network(7)
    assert torch.equal(torch.rand(2), expected)


def test_it_takes_images_and_gives_ten_scores() -> None:
    assert network().eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
