"""The processes of one run (ranks): which one this is, and what all of them have to agree on.

In a run of one process every function is an identity. In a run of several, those that exchange something have to be
called by all of them, in the same order: one that does not call leaves the others waiting until it ends.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> int:
    """The number of processes in this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among all of the run, on whatever machine; 0 is the first, which writes and speaks."""
    return dist.get_rank() if world() > 1 else 0


def is_first() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0


def same_on_all(value: T) -> T:
    """The first process's value: a decision that depends on what only looks alike everywhere. Pickled."""
    if world() == 1:
        return value
    boxed = [value]
    dist.broadcast_object_list(boxed, src=0)
    return boxed[0]


def from_first(action: Callable[[], T]) -> T:
    """What `action` returns in the first process, which alone calls it."""
    return same_on_all(action() if is_first() else None)  # type: ignore[return-value]


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order. Pickled."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def any_on(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(any_of(torch.tensor(flag))) if world() > 1 else flag


def any_of(flags: Tensor) -> Tensor:
    """Booleans of any shape: where they are set in any process."""
    if world() == 1:
        return flags
    counted = flags.to(torch.uint8)
    dist.all_reduce(counted, op=dist.ReduceOp.MAX)
    return counted.bool()


def mean_over(tensor: Tensor) -> Tensor:
    """The mean over processes, of floats of any shape; differentiable.

    The gradient is the mean over processes too: with gradients of parameters averaged over processes, as they are, the
    sum is that of the mean of all losses.
    """
    return _Mean.apply(tensor) if world() > 1 else tensor


def share(count: Tensor | int) -> Tensor | float:
    """How many there are here, relative to the mean over processes; 1.0 in a run of one process.

    A mean over as many elements as a process happens to have, times its share, averages to the mean over all elements.
    """
    if world() == 1:
        return 1.0
    here = torch.as_tensor(count).float()
    return here / mean_over(here).clamp(min=1 / world())


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _averaged(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _averaged(gradient)


def _averaged(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world()
