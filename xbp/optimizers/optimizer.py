"""The base of optimizers: settings, memory, and an update of all parameters."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from inspect import CO_VARARGS, isdatadescriptor, isfunction
from typing import Any, ClassVar, Self, TypeAlias

from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.immutability import is_immutable
from xbp.namespace import (
    Array,
    DType,
    cast_like,
    dtype_name,
    is_floating,
    namespace_of,
    python_number,
    require_floating,
)
from xbp.registry import backend_of
from xbp.settings import is_finite_number, is_number, positive_number

# A function from the number of updates that were made to the learning rate of the next.
Schedule: TypeAlias = Callable[[int], float]

# The count of updates and the rate of a schedule: set between updates, not by them.
OF_UPDATES = ("_update_number", "_rate")

# Of a function that is a step: self, W, dW, memory, lr.
_STEP_ARGUMENTS = 5

# Subclasses may have attributes called ``step``, ``rate``, ``decay`` ...: so this module looks up
# methods in the class, and the attributes of `Optimizer` have other names.


def _counted(update: Callable[..., Any]) -> Any:
    """Wrap an update so that it counts once at its end, whichever it calls by ``super()``."""

    @wraps(update)
    def counted(self: Any, params: Any, grads: Any) -> Any:
        if type(self).update is not counted:
            return update(self, params, grads)
        result = update(self, params, grads)
        vars(self)["_update_number"] = self._update_number + 1
        vars(self).pop("_rate", None)
        return result

    counted.is_counted = True  # type: ignore[attr-defined]
    return counted


class Optimizer:
    """Changes parameters so that the loss becomes smaller.

    A subclass writes `step`: from a parameter, its gradient, its memory, and the learning rate, to
    the new parameter. `memory_names` names the memory. Whole steps are compiled or recorded then,
    where the library can.

    One that needs all parameters at once writes `update` instead, which is called as it is written.
    If it names in `state_names` the attributes that `update` changes (numbers, text, arrays, and
    dictionaries and lists of them), then checkpoints hold them.

    Parameters
    ----------
    lr
        Learning rate: a positive number, or a schedule: a function from the number of updates that
        were made to the rate of the next. See `xbp.schedules`.
    decay
        Weight decay: this share of each parameter is added to its gradient.

    Attributes
    ----------
    memory_names : tuple of str
        What `step` remembers of each parameter: arrays of its shape, zeros at first.
        ``memory_names = ("velocity",)`` keeps them in ``self.velocity``, by the parameters' keys.
    state_names : tuple of str or None
        The attributes that an update changes; for one that writes `step`: ``lr`` and the memory,
        unless the class names others. Not inherited, since a subclass may change more than its
        base. None: not known; then steps are not compiled, and nothing is saved.
    update_number : int
        How many updates were made before: 0 in the first.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    memory_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...] | None] = None
    lr: Any
    _update_number: int = 0
    _rate: float | None = None
    _decay: float = 0.0
    # Whether the step takes the decay into account, instead of the gradient.
    _decays_by_itself: ClassVar[bool] = False

    def __init__(self, lr: float | Schedule = 0.01, *, decay: float = 0.0) -> None:
        self.lr = lr if callable(lr) else positive_number("lr", lr)
        if not (is_finite_number(decay) and decay >= 0):
            raise SettingError(f"decay is a number of 0 or more, not {decay!r}")
        if decay:
            self._decay = float(decay)
        for name in self.memory_names:
            setattr(self, name, {})

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = cls.__dict__
        for kind in ("memory_names", "state_names"):
            if isinstance(names := own.get(kind), str):
                raise SettingError(f"{cls.__name__}: {kind} is a tuple, ({names!r},) with a comma")
        if own.get("__slots__"):
            raise SettingError(
                f"{cls.__name__}: what an optimizer remembers is copied and saved by its "
                "dictionary of attributes: leave out __slots__"
            )
        if odd := [n for n in cls.memory_names if hasattr(Optimizer, n) or not n.isidentifier()]:
            raise SettingError(
                f"{cls.__name__}: memory_names names {odd[0]!r}: choose another name"
            )
        # Of the class itself, or of a base that is no optimizer.
        if isfunction(cls.update) and not hasattr(cls.update, "is_counted"):
            cls.update = _counted(cls.update)  # type: ignore[method-assign]
        is_stepwise = cls.update is Optimizer.update
        if is_stepwise and "step" in own and not _is_step(own["step"]):
            raise SettingError(f"{cls.__name__}: step takes self, W, dW, memory and lr")
        cls.state_names = own.get("state_names", ("lr", *cls.memory_names) if is_stepwise else None)

    def __repr__(self) -> str:
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return self._repr_of(*(name for name, value in public.items() if _is_setting(value)))

    def _repr_of(self, *names: str) -> str:
        more = ["_decay"] if self._decay else []
        values = {name.removeprefix("_"): getattr(self, name) for name in (*names, *more)}
        settings = [f"{name}={_name_or_value(value)}" for name, value in values.items()]
        return f"{type(self).__name__}({', '.join(settings)})"

    # Memory --------------------------------------------------------------------------------------

    @property
    def update_number(self) -> Any:  # noqa: D102
        return self._update_number

    @update_number.setter
    def update_number(self, value: Any) -> None:
        raise SettingError(
            f"{type(self).__name__}: self.update_number is the count of updates: call this "
            "attribute otherwise"
        )

    @property
    def is_stepwise(self) -> bool:
        """Whether one parameter is changed after the other, by `step`, and nothing else."""
        return type(self).update is Optimizer.update and "update" not in vars(self)

    @property
    def state(self) -> dict[str, Any] | None:
        """What a checkpoint holds of the optimizer, by name; None if it is not known.

        It is not known without `state_names`, or if another attribute is a list, an array, or
        anything else that may change in place, or the optimizer has an `update` that its class has
        not. A schedule is not part of it.
        """
        if self.state_names is None or self.unseen or "update" in vars(self):
            return None
        own, kind = vars(self), type(self)
        if missing := [n for n in self.state_names if n not in own and not hasattr(kind, n)]:
            raise SettingError(
                f"{kind.__name__}: state_names names {missing[0]!r}, and there is no such attribute"
            )
        schedule = schedule_of(self)
        names = [name for name in self.state_names if name != "lr" or schedule is None]
        state = {name: getattr(self, name) for name in names}
        for name, value in state.items():
            if isdatadescriptor(getattr(kind, name, None)):
                raise SettingError(
                    f"{kind.__name__}: state_names names {name!r}, a property: name the "
                    "attributes that it reads"
                )
            if (odd := _odd_container(value)) is not None:
                raise SettingError(
                    f"{kind.__name__}: self.{name} holds a {type(odd).__name__}: what "
                    "state_names names is in plain dictionaries, lists and tuples"
                )
        return state

    @property
    def unnamed(self) -> dict[str, Any]:
        """The attributes that `state_names` does not name."""
        names = {*(self.state_names or ()), *OF_UPDATES}
        return {name: value for name, value in vars(self).items() if name not in names}

    @property
    def unseen(self) -> list[str]:
        """The names of the `unnamed` attributes that may change in place."""
        return [name for name, value in self.unnamed.items() if not is_immutable(value)]

    def bound_to(self, state: Mapping[str, Any]) -> Self:
        """Return a copy of the optimizer with another state."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **state)
        return copy

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take another state in place of this one."""
        vars(self).update(state)

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Create the memory of each parameter that has none yet: zeros.

        They are of float32 at least: in float16 the square of a small gradient is 0.
        """
        for name in self.memory_names:
            memory = vars(self).setdefault(name, {})
            for key, W in params.items():
                if key not in memory:
                    memory[key] = namespace_of(W).zeros_like(W, dtype=_at_least_float32(W))

    # An update -----------------------------------------------------------------------------------

    def rate_after(self, number: int) -> Any:
        """Return the learning rate after so many updates.

        Raises
        ------
        SettingError
            If there is none, or a schedule fails or gives one below 0.
        """
        if self._rate is not None and number is self._update_number:
            return self._rate  # as planned: the number may be traced, without a value
        schedule = schedule_of(self)
        if schedule is None:
            return fixed_rate_of(self)
        try:
            rate = schedule(number)
        except Exception as error:
            raise SettingError(
                f"{type(self).__name__}: after {number:,} updates the schedule "
                f"{_name_or_value(schedule)} fails with {type(error).__name__}: {error}: it takes "
                "the number of updates"
            ) from error
        if not (is_finite_number(rate) and rate >= 0):
            raise SettingError(
                f"{type(self).__name__}: after {number:,} updates the schedule {schedule!r} gives "
                f"{rate!r}: a learning rate is a number of 0 or more"
            )
        return float(rate)

    def plan_update(self, number: int, rate: float | None = None) -> None:
        """Set the number of the next `update`, and its learning rate if a schedule gives one."""
        vars(self).update(_update_number=number, _rate=rate)

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Return a parameter after a step; arrays are not changed in place.

        Parameters
        ----------
        W, dW
            The parameter and its gradient, of one shape and one dtype: float32 at least.
        memory
            The memory of the parameter, by the names in `memory_names`. What is assigned to its
            items is kept for the next step.
        lr
            The learning rate, a number, or a 0-d array while a step is compiled.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update: write step, or update")

    @_counted
    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change every parameter that has a gradient.

        Parameters
        ----------
        params
            Arrays by key, to which new ones are assigned.
        grads
            Gradients by key; they are not changed.

        Raises
        ------
        SettingError, ShapeError, DTypeError, MixedBackendError
            If a gradient does not fit its parameter, or the memory is of another network. Then no
            parameter has changed.
        """
        step = _step_of(type(self))
        if step is Optimizer.step:
            step(self, None, None, {}, None)
        rate = Optimizer.rate_after(self, self._update_number)
        gradients = self._gradients(params, grads)
        Optimizer.prepare(self, {key: params[key] for key in gradients})
        with _without_recording([*params.values(), *gradients.values()]):
            results = {
                key: self._result_of(step, key, params[key], gradient, rate)
                for key, gradient in gradients.items()
            }
        for key, (W, memory) in results.items():
            params[key] = W
            for name, value in memory.items():
                getattr(self, name)[key] = value

    def _result_of(
        self, step: Callable[..., Any], key: str, W: Array, gradient: Array, rate: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Return a parameter and its memory after a step."""
        memory = {name: getattr(self, name)[key] for name in self.memory_names}
        before, xp, dtype = dict(memory), namespace_of(W), _at_least_float32(W)
        wide, dW = (x if x.dtype == dtype else xp.astype(x, dtype) for x in (W, gradient))
        if self._decay and not self._decays_by_itself:
            dW = dW + self._decay * wide
        # While a step is compiled, this is an array, perhaps of a wider dtype.
        lr = cast_like(rate, like=wide) if hasattr(rate, "dtype") else rate
        new = step(self, wide, dW, memory, lr)
        where = f"{type(self).__name__}.step"
        if memory.keys() != before.keys():
            names = ", ".join(before) or "nothing"
            raise SettingError(
                f"{where} remembers {', '.join(memory) or 'nothing'}, and memory_names names "
                f"{names}"
            )
        for what, value in (("a new parameter", new), *memory.items()):
            if not hasattr(value, "shape"):
                raise DTypeError(f"{where} gives {value!r:.60} as {what}: it is an array")
            if value.shape != W.shape:
                raise ShapeError(
                    f"{where} gives {what} of shape {tuple(value.shape)}: {key} has "
                    f"{tuple(W.shape)}"
                )
        return _as_array_like(new, W), {
            name: _as_array_like(value, before[name]) for name, value in memory.items()
        }

    def _gradients(
        self, params: Mapping[str, Array], grads: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Return the gradients in the dtypes of their parameters; raise unless all fit.

        So an update changes all parameters or none.
        """
        kind = type(self).__name__
        if not isinstance(params, Mapping) or not isinstance(grads, Mapping):
            raise SettingError(
                f"{kind}.update takes parameters and gradients by key, as dictionaries"
            )
        gradients = {}
        for key, gradient in grads.items():
            where = f"{kind}.update, the gradient of {key}"
            if key not in params:
                raise SettingError(f"{where}: the parameters are {', '.join(params) or 'none'}")
            parameter = params[key]
            namespace_of(gradient, parameter, where=where)
            require_floating(parameter, f"{kind}.update, {key}")
            if gradient.shape != parameter.shape:
                raise ShapeError(
                    f"{where} has shape {tuple(gradient.shape)}, the parameter "
                    f"{tuple(parameter.shape)}"
                )
            for name in self.memory_names:
                memory = vars(self).get(name, {}).get(key)
                if memory is not None and not _is_memory_of(parameter, memory):
                    raise SettingError(
                        f"{kind}: self.{name}[{key!r}] is {_described(memory)}, and {key} is "
                        f"{_described(parameter)}: make an optimizer for each network; what it "
                        "remembers has the parameter's shape, and float32 at least"
                    )
            gradients[key] = cast_like(gradient, like=parameter)
        return gradients


def schedule_of(optimizer: Optimizer) -> Schedule | None:
    """Return the learning rate of an optimizer, if that is a function; else None."""
    lr = vars(optimizer).get("lr")
    return lr if callable(lr) else None


def fixed_rate_of(optimizer: Optimizer) -> Any:
    """Return the learning rate of an optimizer, if that is no function.

    Raises
    ------
    SettingError
        If there is none, or it is no number.
    """
    kind = type(optimizer).__name__
    if not hasattr(optimizer, "lr"):
        raise SettingError(f"{kind} has no lr: let __init__ call super().__init__(lr)")
    lr = optimizer.lr
    if is_number(lr):
        return python_number(lr)
    if not hasattr(type(lr), "dtype"):  # nor an array, perhaps a traced one
        raise SettingError(f"{kind}: lr is a number or a schedule, not {lr!r}")
    return lr


def _name_or_value(value: Any) -> Any:
    # A method is shown by its name: it would show its optimizer, and that the method.
    return getattr(value, "__qualname__", value)


def _is_setting(value: Any) -> bool:
    return callable(value) or isinstance(value, bool | int | float | str)


def _step_of(kind: type) -> Callable[..., Any]:
    """Return the step of a class, past other attributes that its subclasses call ``step``."""
    functions = (vars(base)["step"] for base in kind.__mro__ if "step" in vars(base))
    step: Callable[..., Any] = next(filter(_is_step, functions))
    return step


def _is_step(function: Any) -> bool:
    if not isfunction(function):
        return False
    code = function.__code__
    return code.co_argcount == _STEP_ARGUMENTS or bool(code.co_flags & CO_VARARGS)


def _described(x: Any) -> str:
    """Return the library, dtype and shape of an array, ``"numpy float32 (3,)"``, or a value."""
    if not hasattr(x, "dtype"):
        return repr(x)
    library = type(x).__module__.partition(".")[0]
    return f"{library} {dtype_name(x.dtype)} {tuple(x.shape)}"


def _is_memory_of(parameter: Array, memory: Any) -> bool:
    return (
        hasattr(memory, "dtype")
        and namespace_of(memory) is namespace_of(parameter)
        and memory.shape == parameter.shape
        and memory.dtype == _at_least_float32(parameter)
    )


def _as_array_like(x: Array, like: Array) -> Array:
    """Return x in the dtype of another array, also where NumPy made a number of a 0-d array."""
    x = cast_like(x, like=like)
    return x if x.ndim else namespace_of(x).asarray(x)


def _at_least_float32(like: Array) -> DType:
    xp = namespace_of(like)
    return xp.result_type(like.dtype, xp.float32) if is_floating(like) else like.dtype


def _without_recording(arrays: Sequence[Array]) -> AbstractContextManager[Any]:
    """Return a context in which no library records an update to differentiate it."""
    recorded = [x for x in arrays if getattr(x, "requires_grad", False)]
    return backend_of(recorded[0]).scope() if recorded else nullcontext()


def _odd_container(value: Any) -> Any:
    """Return the first of nested containers that is a dict, list or tuple of a subclass, or None.

    A copy of it would be a plain one.
    """
    if not isinstance(value, dict | list | tuple):
        return None
    if type(value) not in (dict, list, tuple):
        return value
    parts = value.values() if isinstance(value, dict) else value
    return next((odd for part in parts if (odd := _odd_container(part)) is not None), None)
