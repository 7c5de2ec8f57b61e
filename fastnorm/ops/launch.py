"""Calls of drivers, with what Numba finds out anew in every call remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.plan.problem import Problem
from fastnorm.runtime.threads import crew_for


class Driver:
    """A driver that is called with arguments of the same types every time: Numba finds them anew in every call, and takes 1 to 3 us."""

    def __init__(self, room: Any, name: str) -> None:
        self._driver = getattr(room, name)
        self._entry: Callable[..., Any] | None = None
        self._calls = 0

    def __call__(self, *arguments: Any) -> Any:
        if self._entry is not None:
            return self._entry(*arguments)
        result = self._driver(*arguments)
        self._calls += 1
        if self._calls == 2:
            self._entry = self._driver.overloads[tuple(self._driver.typeof_pyval(a) for a in arguments)].entry_point
        return result


class Launch(Driver):
    """One whose first argument is the crew: whether several threads share its work."""

    def __init__(self, problem: Problem, room: Any, name: str) -> None:
        super().__init__(room, name)
        self._shared = problem.geometry.size if problem.schedule.parallel else 0

    def __call__(self, *arguments: Any) -> Any:
        crew = crew_for(self._shared) if self._shared else 0
        return super().__call__(crew, *arguments) if self._entry is None else self._entry(crew, *arguments)


_finders: dict[str, Driver] = {}


def all_finite(values: NDArray[Any]) -> bool:
    """Whether all numbers of a vector are. By a kernel, as a product of NumPy's warns of squares beyond the range of the dtype, and to keep
    it from doing so takes 1 us."""
    find = _finders.get(values.dtype.char)
    if find is None:
        find = _finders[values.dtype.char] = Driver(kernels.small, "are_finite")
    return find(values)  # type: ignore[no-any-return]
