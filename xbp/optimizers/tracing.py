"""What a traced step of an optimizer carries on, and what it takes for constant."""

from typing import Any

from xbp.immutability import is_immutable
from xbp.namespace import python_number
from xbp.optimizers.optimizer import OF_UPDATES, Optimizer, fixed_rate_of, schedule_of
from xbp.settings import is_number


def memory_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return what `Optimizer.step` remembers, and the numbers that it reads.

    These are the learning rate, if it is no schedule, and the numbers that `state_names` names:
    what is compiled for one momentum is compiled for another.
    """
    own, memory = vars(optimizer), optimizer.memory_names
    named = {name: own[name] for name in optimizer.state_names or () if name in own}
    numbers = {
        name: python_number(value) if is_number(value) else value  # no library knows NumPy's
        for name, value in named.items()
        if name not in memory and (is_number(value) or hasattr(type(value), "dtype"))
    }
    if not schedule_of(optimizer):
        numbers["lr"] = fixed_rate_of(optimizer)
    return {**numbers, **{name: own.get(name, {}) for name in memory}}


def fixed_by(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes that `Optimizer.step` is not to change: all but the memory."""
    others = {*optimizer.memory_names, *OF_UPDATES}
    return {name: value for name, value in vars(optimizer).items() if name not in others}


def is_traceable(optimizer: Optimizer) -> bool:
    """Tell whether an update can be traced.

    Not if the class has an `update` of its own, or says ``state_names = None``, or if what `step`
    reads may change in place.
    """
    if not optimizer.is_stepwise or optimizer.state_names is None:
        return False
    variables = {"lr", *memory_of(optimizer)}
    fixed = fixed_by(optimizer).items()
    return all(name in variables or is_immutable(value) for name, value in fixed)
