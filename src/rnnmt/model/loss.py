"""Output layer and label-smoothed cross-entropy in one, never holding all logits at once."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

CHUNK = 256  # rows at a time: the logits of a chunk stay in the processor's cache


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a chunk's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        size = weight.shape[0]
        loss, nll = features.new_zeros(()), features.new_zeros(())
        d_features, d_weight = torch.empty_like(features), torch.zeros_like(weight)
        d_bias = torch.zeros_like(bias)
        off = smoothing / size
        for start in range(0, len(labels), CHUNK):
            x, y = features[start : start + CHUNK], labels[start : start + CHUNK]
            logits = torch.addmm(bias, x, weight.t())
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            gold = logits.gather(1, y.unsqueeze(1))
            chunk_nll = (normaliser - gold).sum()
            uniform = size * normaliser.sum() - logits.sum()
            nll += chunk_nll
            loss += (1.0 - smoothing) * chunk_nll + off * uniform
            # d loss / d logits = softmax - smoothed target
            gradient = logits.sub_(normaliser).exp_()
            if smoothing:
                gradient.sub_(off)
            gradient.scatter_add_(1, y.unsqueeze(1), (smoothing - 1.0) * torch.ones_like(gold))
            torch.mm(gradient, weight, out=d_features[start : start + CHUNK])
            d_weight.addmm_(gradient.t(), x)
            d_bias += gradient.sum(dim=0)
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        upstream = gradients[0]
        d_features, d_weight, d_bias = ctx.saved_tensors
        return d_features * upstream, d_weight * upstream, d_bias * upstream, None, None


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Sums over N tokens of the smoothed cross-entropy and of the plain one, in nats.

    `features` (N, E), `weight` (V, E), `bias` (V,), `labels` (N,). The smoothed target has
    1 - smoothing + smoothing / V on the label and smoothing / V elsewhere (Szegedy et al. 2016),
    as `torch.nn.functional.cross_entropy`. Only the first sum can be differentiated.
    """
    return cast(
        tuple[Tensor, Tensor],
        _LinearCrossEntropy.apply(features, weight, bias, labels, smoothing),  # type: ignore[no-untyped-call]
    )
