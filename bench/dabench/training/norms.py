"""Batch norms in training: whose statistics they take."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dabench.training.world import World

Norm = TypeVar("Norm", bound=nn.BatchNorm2d)


class SyncedNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of all processes' images, on processors.

    torch's own `SyncBatchNorm` refuses tensors that are not on an accelerator.
    """

    world: World

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        var, mean = torch.var_mean(_precise(x.detach()), dim=(0, 2, 3), correction=0)
        count = x.numel() // x.shape[1]
        # Of each process; as many images each, so that all means count the same.
        means, variances = (torch.stack(self.world.gathered(each)) for each in (mean, var))
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        self._remember(mean, var, count * self.world.size)
        normalised: Tensor = _Normalise.apply(x, self.weight, self.bias, mean, var, self)
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Takes the statistics of a batch into the running ones, as batch norm does."""
        batches = self.get_buffer("num_batches_tracked").add_(1)
        share = 1 / batches.item() if self.momentum is None else self.momentum
        self.get_buffer("running_mean").lerp_(mean, share)
        self.get_buffer("running_var").lerp_(var * (count / (count - 1)), share)


class _Normalise(torch.autograd.Function):
    """Normalisation whose way back knows that every process's images are in the statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
        norm: SyncedNorm,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, var)
        ctx.norm = norm
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=norm.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        world: World = ctx.norm.world
        shape = (1, -1, 1, 1)
        scale = torch.rsqrt(var + ctx.norm.eps)
        normal = (_precise(x) - mean.view(shape)) * scale.view(shape)
        whole = _precise(gradient)
        of_bias, of_weight = whole.sum((0, 2, 3)), (whole * normal).sum((0, 2, 3))
        count = x.numel() // x.shape[1] * world.size
        by_mean, by_scale = (world.total(torch.stack([of_bias, of_weight])) / count).unbind()
        of_x = whole - by_mean.view(shape) - normal * by_scale.view(shape)
        of_x *= (scale * weight).view(shape)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None


def _precise(x: Tensor) -> Tensor:
    """In fp32 what came in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm by its running statistics, which stay; scale and shift learn."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)


def set_norms(network: nn.Module, kind: str, where: torch.device, world: World) -> nn.Module:
    """A network with its batch norms of a kind; parameters and buffers stay the same objects.

    Args:
        network: Changed in place.
        kind: Of `dabench.training.config.BATCH_NORMS`.
        where: Its device.
        world: Whose statistics ``sync`` takes.
    """
    if kind == "frozen":
        _become(network, FrozenNorm)
    elif kind == "sync" and world.size > 1:
        if where.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        else:
            for norm in _become(network, SyncedNorm):
                norm.world = world
    return network


def _become(network: nn.Module, kind: type[Norm]) -> list[Norm]:
    # What a norm holds stays what it is: only what it does is another.
    every = [norm for norm in norms_of(network) if isinstance(norm, nn.BatchNorm2d)]
    for norm in every:
        norm.__class__ = kind
    return [norm for norm in every if isinstance(norm, kind)]


def norms_of(network: nn.Module) -> list[_BatchNorm]:
    """All batch norms, in a network's order."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def is_frozen(network: nn.Module) -> bool:
    """Whether passing images changes no statistics."""
    return all(isinstance(norm, FrozenNorm) for norm in norms_of(network))
