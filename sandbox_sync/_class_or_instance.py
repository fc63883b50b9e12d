"""Methods that exist twice under one name: `Sandbox.kill(sandbox_id)` and `sandbox.kill()`.

Each form is an ordinary method with its own signature and docstring, and the attribute chooses between them:
so help(), inspect.signature() and type checkers show the form that is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from sandbox_sync.errors import SandboxException

ClassP = ParamSpec("ClassP")
ClassR = TypeVar("ClassR")
InstanceP = ParamSpec("InstanceP")
InstanceR = TypeVar("InstanceR")
T = TypeVar("T")
E = TypeVar("E")


class _TwoForms:
    def __init__(self, on_class: Any, on_instance: Any) -> None:
        self._on_class = on_class
        self._on_instance = on_instance
        self.__doc__ = on_class.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        for function in (self._on_class.__func__, self._on_instance):
            function.__module__ = owner.__module__
            function.__name__ = name
            function.__qualname__ = f"{owner.__qualname__}.{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        form = self._on_class if instance is None else self._on_instance
        return form.__get__(instance, owner)


class ClassOrInstance(_TwoForms, Generic[ClassP, ClassR, InstanceP, InstanceR]):
    """A method with a form for the class and one for its instances."""

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[ClassP, ClassR]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[InstanceP, InstanceR]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return super().__get__(instance, owner)


class SelfReturning(_TwoForms, Generic[ClassP, InstanceP]):
    """The same, where both forms return an instance of the class that they were called on."""

    @overload
    def __get__(self, instance: None, owner: type[T]) -> Callable[ClassP, T]: ...
    @overload
    def __get__(self, instance: T, owner: type[T]) -> Callable[InstanceP, T]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return super().__get__(instance, owner)


class SelvesReturning(_TwoForms, Generic[ClassP, InstanceP, E]):
    """The same, where they return several of them, and errors in place of some."""

    @overload
    def __get__(self, instance: None, owner: type[T]) -> Callable[ClassP, list[T | E]]: ...
    @overload
    def __get__(self, instance: T, owner: type[T]) -> Callable[InstanceP, list[T | E]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return super().__get__(instance, owner)


def also_on_class(
    on_class: Callable[ClassP, ClassR],
) -> Callable[
    [Callable[Concatenate[Any, InstanceP], InstanceR]], ClassOrInstance[ClassP, ClassR, InstanceP, InstanceR]
]:
    """Decorate the instance form of a method with the function that is its class form."""

    def decorate(
        on_instance: Callable[Concatenate[Any, InstanceP], InstanceR],
    ) -> ClassOrInstance[ClassP, ClassR, InstanceP, InstanceR]:
        return ClassOrInstance(staticmethod(on_class), on_instance)

    return decorate


def also_on_class_returning_self(
    on_class: Callable[Concatenate[Any, ClassP], Any],
) -> Callable[[Callable[Concatenate[Any, InstanceP], Any]], SelfReturning[ClassP, InstanceP]]:
    """The same with a classmethod, where the two forms return an instance of the class."""

    def decorate(on_instance: Callable[Concatenate[Any, InstanceP], Any]) -> SelfReturning[ClassP, InstanceP]:
        return SelfReturning(on_class, on_instance)

    return decorate


def also_on_class_returning_selves(
    on_class: Callable[Concatenate[Any, ClassP], Any],
) -> Callable[
    [Callable[Concatenate[Any, InstanceP], Any]], SelvesReturning[ClassP, InstanceP, SandboxException]
]:
    """The same with a classmethod, where the two forms return a list of instances of the class, or errors."""

    def decorate(
        on_instance: Callable[Concatenate[Any, InstanceP], Any],
    ) -> SelvesReturning[ClassP, InstanceP, SandboxException]:
        return SelvesReturning(on_class, on_instance)

    return decorate
