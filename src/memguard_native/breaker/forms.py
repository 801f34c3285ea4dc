"""Which forms of callables a breaker guards, and where admission and verdict fall in each.

| form | admission | verdict |
|---|---|---|
| function | at the call | return or raise |
| coroutine function | at the first await | its end |
| generator function | at the first next | exhausted: success; closed or dropped: neutral |
| asynchronous generator function | at the first await of a step | the same |
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from enum import IntEnum
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class Form(IntEnum):
    """The numbers are those of the core."""

    function = 0
    coroutine = 1
    generator = 2
    async_generator = 3


_QUESTIONS = (
    (inspect.iscoroutinefunction, Form.coroutine),
    (inspect.isgeneratorfunction, Form.generator),
    (inspect.isasyncgenfunction, Form.async_generator),
)


def form_of(function: Callable[..., object]) -> Form:
    """The form of a function, a method, a partial, or an object with such a `__call__`."""
    for subject in (function, type(function).__call__):
        for is_form, form in _QUESTIONS:
            if is_form(subject):
                return form
    return Form.function


def check_callable(function: object) -> None:
    """Raises TypeError: only what can be called can be guarded."""
    if not callable(function):
        raise TypeError(f"cannot guard {function!r}: it is not callable")


def with_timeout(
    function: Callable[P, R], form: Form, seconds: Callable[[], float | None]
) -> Callable[P, R]:
    """The coroutine function, cancelled after so many seconds: its caller gets a TimeoutError.

    `seconds()` is asked at each call; None: no limit.

    Raises TypeError for other forms: nothing can stop them from outside.
    """
    if form is not Form.coroutine:
        raise TypeError(f"call_timeout is for coroutine functions, and {function!r} is none")
    coroutine_function = cast("Callable[P, Coroutine[Any, Any, Any]]", function)

    @functools.wraps(function)
    async def timed(*args: P.args, **kwargs: P.kwargs) -> Any:
        import asyncio

        async with asyncio.timeout(seconds()):
            return await coroutine_function(*args, **kwargs)

    return cast("Callable[P, R]", timed)


def close_unstarted(*arguments: object) -> None:
    """Close the coroutines among the arguments that nobody has begun to await.

    The call that would have awaited them was rejected: else each warns that it was never awaited.
    """
    for argument in arguments:
        if inspect.iscoroutine(argument) and (
            inspect.getcoroutinestate(argument) == inspect.CORO_CREATED
        ):
            argument.close()


async def call_and_await(function: Callable[..., Awaitable[R]], *args: Any, **kwargs: Any) -> R:
    """Call and wait, as one coroutine function."""
    return await function(*args, **kwargs)
