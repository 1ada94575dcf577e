"""Output layer and label-smoothed cross-entropy in one, which never hold all float32 logits.

Shapes: N tokens, E width of the features, V vocabulary.

With z = W x + b the logits of a token, y its label, s the smoothing and p = softmax(z):

    loss = (1 - s) (lse(z) - z_y) + s / V sum_v (lse(z) - z_v)     lse: log of the sum of exp
    d loss / d z = p - s / V - (1 - s) onehot(y)

Only p needs the whole vocabulary. What the other two terms add to the gradients is known in closed
form, so that softmax is the one pass over logits between the matrix products.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 256  # rows whose logits stay in the processor's cache
# Probabilities kept for one product: more than 32 MB would be new pages each time.
BLOCK = 7_500_000
# Rows are filled up to a multiple: oneDNN makes, and keeps, a kernel for every new shape.
ROUND = 64


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a chunk's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        factor, shift = weight.to(features.dtype), bias.to(features.dtype)
        count, filling = len(labels), -len(labels) % ROUND
        inputs, targets = pad(features, (0, 0, 0, filling)), pad(labels, (0, filling))
        d_features = torch.empty_like(inputs)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        log_sum, gold = bias.new_empty(len(targets)), bias.new_empty(len(targets))
        block = CHUNK * max(1, BLOCK // len(weight) // CHUNK)
        for start in range(0, len(targets), block):
            rows = slice(start, start + block)
            x = inputs[rows]
            p = _probabilities(x, factor, shift, targets[rows], log_sum[rows], gold[rows])
            p[max(0, count - start) :] = 0.0
            _product(p, factor, out=d_features[rows])
            d_weight += _product(p.t(), x)
            d_bias += p.sum(dim=0)
        d_features, log_sum, gold = d_features[:count], log_sum[:count], gold[:count]
        nll = (log_sum - gold).sum()
        # The label's own and the smoothing's share.
        wide, off, keep = features.to(weight.dtype), smoothing / len(weight), 1.0 - smoothing
        d_features.sub_(factor[labels], alpha=keep)
        d_weight.index_add_(0, labels, wide, alpha=-keep)
        d_bias.sub_(labels.bincount(minlength=len(bias)), alpha=keep)
        all_features, all_weights = wide.sum(dim=0), weight.sum(dim=0)
        logits = all_features @ all_weights + count * bias.sum()
        loss = keep * nll + off * (len(weight) * log_sum.sum() - logits)
        d_features -= (off * all_weights).to(features.dtype)
        d_weight -= off * all_features
        d_bias -= off * count
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        upstream = gradients[0]
        d_features, d_weight, d_bias = ctx.saved_tensors
        scaled = d_features * upstream.to(d_features.dtype)
        return scaled, d_weight * upstream, d_bias * upstream, None, None


def _probabilities(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, log_sum: Tensor, gold: Tensor
) -> Tensor:
    """Softmax of the logits (N, V). Fills in their log-sum-exp and the labels' own (N,)."""
    probabilities = features.new_empty(len(features), len(weight))
    for start in range(0, len(features), CHUNK):
        rows = slice(start, start + CHUNK)
        logits = _product(features[rows], weight.t(), bias)
        p = torch.softmax(logits, dim=1, out=probabilities[rows])
        y = labels[rows].unsqueeze(1)
        gold[rows] = logits.gather(1, y)[:, 0]
        # lse(z) = z_y - log p_y, unless p_y is below the least number there is.
        log_sum[rows] = gold[rows] - p.gather(1, y)[:, 0].to(gold.dtype).log()
        if not torch.isfinite(log_sum[rows]).all():
            log_sum[rows] = logits.to(gold.dtype).logsumexp(dim=1)
    return probabilities


def _product(
    left: Tensor, right: Tensor, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """`left` (M, K) times `right` (K, N), plus `bias` (N,).

    By oneDNN where there is one: in float32 torch.mm takes MKL, which does half as many operations
    a second on processors that are not Intel's.
    """
    if left.dtype == torch.float32 and torch._C._has_mkldnn:
        linear = torch.ops.mkldnn._linear_pointwise
        if bias is None and not left.is_contiguous():  # which it would copy
            product: Tensor = linear(right.t(), left, None, "none", [], "").t()
        else:
            product = linear(left, right.t(), bias, "none", [], "")
        return product if out is None else out.copy_(product)
    if bias is None:
        return torch.mm(left, right, out=out)
    return torch.addmm(bias, left, right, out=out)


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Sums over N tokens of the smoothed cross-entropy and of the plain one, in nats.

    `features` (N, E), in float32 or bfloat16: products are in their type, sums in float32.
    `weight` (V, E), `bias` (V,) in float32, `labels` (N,). The smoothed target has
    1 - smoothing + smoothing / V on the label and smoothing / V elsewhere (Szegedy et al. 2016),
    as `torch.nn.functional.cross_entropy`. Only the first sum can be differentiated.
    """
    return cast(
        tuple[Tensor, Tensor],
        _LinearCrossEntropy.apply(features, weight, bias, labels, smoothing),  # type: ignore[no-untyped-call]
    )
