"""The guarded callable is the function in all but its protection."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import typing
import weakref

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native._core import Guard, trampoline

from .calls import Boom, fail_times

module_breaker = CircuitBreaker("module")


@module_breaker
def greet(name: str, *, greeting: str = "Hello") -> str:
    """Say hello."""
    return f"{greeting}, {name}"


@module_breaker
async def greet_later(name: str) -> str:
    """Say hello, later."""
    return f"Hello, {name}"


def test_it_passes_arguments_and_results_untouched(breaker):
    @breaker
    def echo(*args, **kwargs):
        return args, kwargs

    assert echo() == ((), {})
    assert echo(1, *range(9), a=2, **dict.fromkeys("b", 3)) == ((1, *range(9)), {"a": 2, "b": 3})
    assert greet("you", greeting="Good day") == "Good day, you"


def test_it_keeps_name_doc_signature_and_hints():
    original = greet.__wrapped__
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(greet, attribute) == getattr(original, attribute)
    assert inspect.signature(greet) == inspect.signature(original)
    assert typing.get_type_hints(greet) == {"name": str, "greeting": str, "return": str}
    assert inspect.unwrap(greet) is original
    assert inspect.getsource(greet) == inspect.getsource(original)
    assert "greet" in repr(greet)
    assert "'module'" in repr(greet)
    assert greet.breaker is module_breaker


def test_coroutine_functions_are_recognised():
    assert inspect.iscoroutinefunction(greet_later)
    assert not inspect.iscoroutinefunction(greet)
    if sys.version_info < (3, 14):
        assert asyncio.iscoroutinefunction(greet_later)


def test_functools_wraps_and_attributes_work():
    @functools.wraps(greet)
    def wrapper():
        return greet("wraps")

    assert wrapper.__doc__ == "Say hello."
    greet.tag = "hot"
    assert greet.tag == "hot"
    assert not hasattr(greet.__wrapped__, "tag")
    del greet.tag
    with pytest.raises(AttributeError, match="tag"):
        greet.tag  # noqa: B018


def test_it_is_copied_hashed_and_referenced_like_a_function():
    assert copy.copy(greet) is greet
    assert copy.deepcopy(greet) is greet
    assert weakref.ref(greet)() is greet
    assert {greet: 1}[greet] == 1


def test_it_is_pickled_by_name(tmp_path, monkeypatch):
    (tmp_path / "guarded_module.py").write_text(
        "from memguard_native import CircuitBreaker\n"
        "@CircuitBreaker('pickled')\n"
        "def work(): return 42\n"
        "class Service:\n"
        "    @CircuitBreaker('method')\n"
        "    def work(self): return 43\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import guarded_module

    assert pickle.loads(pickle.dumps(guarded_module.work)) is guarded_module.work
    bound = pickle.loads(pickle.dumps(guarded_module.Service().work))
    assert bound() == 43


def test_methods_bind_like_functions(breaker):
    class Service:
        @breaker
        def method(self, x):
            return self, x

        @breaker
        @classmethod
        def class_method(cls, x):
            return cls, x

        @classmethod
        @breaker
        def class_method_outside(cls, x):
            return cls, x

        @breaker
        @staticmethod
        def static_method(x):
            return x

        @staticmethod
        @breaker
        def static_method_outside(x):
            return x

    service = Service()
    assert service.method(1) == (service, 1)
    assert Service.method(service, 2) == (service, 2)
    assert service.class_method(3) == Service.class_method_outside(3) == (Service, 3)
    assert service.static_method(4) == Service.static_method_outside(4) == 4
    assert service.method.__self__ is service


def test_partials_builtins_and_callable_objects_are_guarded(breaker):
    class Callable:
        def __call__(self, x):
            return x + 1

    assert breaker(functools.partial(int, base=2))("101") == 5
    assert breaker(len)("abc") == 3
    assert breaker(Callable())(1) == 2
    with pytest.raises(ValueError, match="invalid literal"):
        breaker(functools.partial(int, base=2))("x")
    assert breaker.failure_count == 1


def test_what_cannot_be_guarded_as_one_call_is_refused(breaker):
    for thing in (Boom, 5, None):
        with pytest.raises(TypeError, match="cannot guard"):
            breaker(thing)


def test_a_plain_function_that_returns_a_coroutine_warns(breaker):
    async def work():
        return 1

    def looks_plain():
        return work()

    with pytest.warns(RuntimeWarning, match="is no coroutine function"):
        coroutine = breaker(looks_plain)()
    assert asyncio.run(coroutine) == 1


def test_the_type_is_final_and_checks_its_arguments(breaker):
    with pytest.raises(TypeError):
        type("Sub", (Guard,), {})
    with pytest.raises(TypeError):
        Guard.__call__ = None
    for arguments in ((5, breaker._core, breaker, False), (len, "core", breaker, False), ()):
        with pytest.raises(TypeError):
            Guard(*arguments)
    with pytest.raises(TypeError, match="takes a callable"):
        trampoline(5)


def test_calls_leave_every_reference_count_as_it_was(breaker):
    arguments, result = object(), object()

    def give_back(_):
        return result

    def refuse(_):
        raise Boom

    guarded, failing = breaker(give_back), breaker(refuse)
    watched = (arguments, result, guarded, failing, give_back, refuse, breaker, breaker._core)

    def run():
        for _ in range(1000):
            guarded(arguments)
            for _ in range(6):
                with contextlib.suppress(Boom, CircuitOpenError):
                    failing(arguments)
            breaker.reset()

    run()
    before = [sys.getrefcount(thing) for thing in watched]
    run()
    assert [sys.getrefcount(thing) for thing in watched] == before


def test_a_cycle_through_a_guard_is_collected(breaker):
    class Node:
        pass

    def make_cycle():
        node = Node()

        @breaker
        def holds_itself():
            return node

        node.guard = holds_itself
        return weakref.ref(node)

    reference = make_cycle()
    gc.collect()
    assert reference() is None


def test_a_call_after_the_collector_cleared_the_guard_raises(breaker):
    outcomes = []

    class CallsAtTheEnd:
        def __init__(self):
            @breaker
            def method(_self=self):
                return 1

            self.guard = method

        def __del__(self):
            try:
                outcomes.append(self.guard())
            except RuntimeError as error:
                outcomes.append(str(error))

    CallsAtTheEnd()
    gc.collect()
    assert outcomes in ([1], ["this guard was already cleared by the garbage collector"])


def test_deep_recursion_is_a_recursion_error_and_neutral(breaker):
    @breaker
    def recurse(n):
        return recurse(n + 1)

    with pytest.raises(RecursionError):
        recurse(0)
    assert (breaker.state, breaker.failure_count) == (State.closed, 0)


def test_an_open_guard_rejects(breaker):
    guarded = breaker(lambda: 1)
    fail_times(breaker, 5)
    with pytest.raises(CircuitOpenError):
        guarded()


def test_the_trampoline_is_transparent():
    class Service:
        @trampoline
        def method(self, x, *, y):
            return self, x, y

    service = Service()
    assert service.method(1, y=2) == (service, 1, 2)
    assert trampoline(max)(3, 1, 2) == 3
