"""The fused output layer and loss against torch.nn.functional.cross_entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rnnmt.model.loss import CHUNK, linear_cross_entropy

torch.set_num_threads(1)

WIDTH, VOCABULARY = 6, 11
COUNTS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3)
SMOOTHINGS = (0.0, 0.1, 0.9)
Arguments = tuple[Tensor, Tensor, Tensor, Tensor]


def arguments(count: int, dtype: torch.dtype = torch.float64) -> Arguments:
    generator = torch.Generator().manual_seed(count)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
        return values.to(dtype).requires_grad_()

    labels = torch.randint(VOCABULARY, (count,), generator=generator)
    return random(count, WIDTH), random(VOCABULARY, WIDTH), random(VOCABULARY), labels


def reference(given: Arguments, smoothing: float) -> Tensor:
    features, weight, bias, labels = given
    logits = features @ weight.t() + bias
    return cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("count", COUNTS)
def test_value_and_gradients_are_those_of_torch(count: int, smoothing: float) -> None:
    given = arguments(count)
    loss, _ = linear_cross_entropy(*given, smoothing)
    expected = reference(given, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(loss, given[:3])
    for gradient, value in zip(gradients, torch.autograd.grad(expected, given[:3]), strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_float32_is_as_good_as_float32_can_be(smoothing: float) -> None:
    exact, given = arguments(CHUNK + 5), arguments(CHUNK + 5, torch.float32)
    loss, nll = linear_cross_entropy(*given, smoothing)
    assert loss.dtype == nll.dtype == torch.float32
    expected = reference(exact, smoothing)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(loss, given[:3])
    for gradient, value in zip(gradients, torch.autograd.grad(expected, exact[:3]), strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient.double(), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("count", COUNTS)
def test_nll_is_the_plain_sum_whatever_the_smoothing(count: int, smoothing: float) -> None:
    given = arguments(count)
    _, nll = linear_cross_entropy(*given, smoothing)
    torch.testing.assert_close(nll, reference(given, 0.0).detach(), rtol=1e-10, atol=1e-10)
    assert not nll.requires_grad


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_no_tokens_give_a_loss_and_gradients_of_zero(smoothing: float) -> None:
    given = arguments(0)
    loss, nll = linear_cross_entropy(*given, smoothing)
    assert (loss.item(), nll.item()) == (0.0, 0.0)
    for gradient, value in zip(torch.autograd.grad(loss, given[:3]), given, strict=False):
        torch.testing.assert_close(gradient, torch.zeros_like(value), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("factor", [0.0, -1.5, 1.0 / 64, 1000.0])
def test_gradients_scale_with_what_comes_from_above(factor: float) -> None:
    given = arguments(CHUNK + 1)
    loss, _ = linear_cross_entropy(*given, 0.1)
    plain = torch.autograd.grad(loss, given[:3], retain_graph=True)
    scaled = torch.autograd.grad(loss * factor, given[:3])
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one * factor, other)


def test_gradients_reach_through_features_and_a_shared_weight() -> None:
    """As with tied embeddings: the same tensor makes the features and is the output layer."""
    _, weight, bias, labels = arguments(40)
    inputs = torch.randint(VOCABULARY, (40,), generator=torch.Generator().manual_seed(1))
    loss, _ = linear_cross_entropy(torch.tanh(weight[inputs]), weight, bias, labels, 0.1)
    expected = reference((torch.tanh(weight[inputs]), weight, bias, labels), 0.1)
    torch.testing.assert_close(
        torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight)
    )


def test_large_logits_stay_finite() -> None:
    features, weight, bias, labels = arguments(5, torch.float32)
    loss, _ = linear_cross_entropy(features * 1e4, weight, bias, labels, 0.1)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, [features, weight]))


def test_the_arguments_stay_as_they_were() -> None:
    given = arguments(CHUNK + 1)
    before = [value.detach().clone() for value in given]
    linear_cross_entropy(*given, 0.1)[0].backward()
    for value, copy in zip(given, before, strict=True):
        torch.testing.assert_close(value.detach(), copy, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_the_size_of_blocks_changes_nothing(
    smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(3 * CHUNK + 7)
    whole = linear_cross_entropy(*given, smoothing)[0]
    expected = torch.autograd.grad(whole, given[:3])
    monkeypatch.setattr("rnnmt.model.loss.BLOCK", VOCABULARY * CHUNK)
    loss, _ = linear_cross_entropy(*given, smoothing)
    torch.testing.assert_close(loss, whole)
    for one, other in zip(torch.autograd.grad(loss, given[:3]), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bfloat16_is_as_good_as_its_eight_bits(smoothing: float) -> None:
    """At the size of a real batch: sums in float32, errors of a gradient within one percent."""
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(700, 64, generator=generator)
    weight = (torch.randn(1500, 64, generator=generator) / 8).requires_grad_()
    bias = torch.randn(1500, generator=generator).requires_grad_()
    labels = torch.randint(1500, (700,), generator=generator)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = features.to(dtype).requires_grad_()
        loss, nll = linear_cross_entropy(inputs, weight, bias, labels, smoothing)
        gradients = torch.autograd.grad(loss, [inputs, weight, bias])
        assert loss.dtype == nll.dtype == torch.float32
        assert [g.dtype for g in gradients] == [dtype, torch.float32, torch.float32]
        results.append([loss.detach(), nll, *(g.float() for g in gradients)])
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() < 0.01 * exact.norm()


def test_a_label_that_the_model_calls_impossible_has_its_true_loss() -> None:
    """Its probability is zero in float32, its negative log-likelihood is not infinite."""
    features, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [500.0]])
    _, nll = linear_cross_entropy(features, weight, torch.zeros(2), torch.tensor([0]), 0.0)
    assert nll.item() == pytest.approx(500.0)
