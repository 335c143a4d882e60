# SPDX-License-Identifier: Apache-2.0
"""Classes keep their identity both ways, and arrive whole."""

import abc
import typing

from process_pair import run

factor = 10


class Base:
    scale = 2

    def __init__(self, x):
        self.x = x

    def get(self):
        return self.x * self.scale * factor


class Derived(Base):
    def __init__(self, x, y):
        super().__init__(x)
        self.y = y

    def get(self):
        return super().get() + self.y


def get(obj):
    return obj.get()


def make(x):
    return Derived(x, 1)


def overwrite(obj):
    type(obj).scale = 99
    return obj


class Slots:
    __slots__ = ("__hidden", "__weakref__", "a")

    def __init__(self):
        self.a = 1
        self.__hidden = 2

    def sum(self):
        return self.a + self.__hidden


class MoreSlots(Slots):
    __slots__ = ["c"]


def fill(slots):
    slots.c = 5
    return slots


class Outer:
    class Inner:
        class Deep:
            value = 1

            def method(self):
                return type(self).__qualname__


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    @property
    def double(self):
        return 2 * self.area()


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


class Virtual(abc.ABC):
    pass


@Virtual.register
class Registered:
    pass


def abstract():
    try:
        Shape()
    except TypeError:
        return Square(3).double, isinstance(Registered(), Virtual)


class Meta(type):
    made = []

    def __new__(cls, name, bases, namespace, **keywords):
        Meta.made.append(name)
        return super().__new__(cls, name, bases, namespace)

    def __call__(cls, *arguments):
        return super().__call__(*arguments)


class WithMeta(metaclass=Meta):
    pass


class UnderMeta(WithMeta):
    def hello(self):
        return "hello"


def metaclass():
    return UnderMeta().hello(), Meta.made, type(UnderMeta) is Meta


class Registry:
    seen = []

    def __init_subclass__(cls, tag, **keywords):
        super().__init_subclass__(**keywords)
        Registry.seen.append((cls.__name__, tag, cls.value))


class First(Registry, tag="a"):
    value = 1


class Second(Registry, tag="b"):
    value = 2


def registry():
    return Registry.seen, First.value


def extend_registry():
    class Third(Registry, tag="c"):
        value = 3

    return Registry.seen[-1]


class Descriptor:
    calls = []

    def __set_name__(self, owner, name):
        self.name = name
        Descriptor.calls.append(name)

    def __get__(self, instance, owner):
        return self.name


class Described:
    field = Descriptor()


def described():
    return Described().field, Descriptor.calls


T = typing.TypeVar("T")
Number = typing.NewType("Number", int)


class Box(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value


class IntBox(Box[int]):
    pass


class Runs(typing.Protocol):
    def run(self) -> int: ...


class Impl(Runs):
    def run(self):
        return 1


class Typed(typing.TypedDict):
    a: int


def generics():
    return IntBox(2).value, IntBox.__orig_bases__ == (Box[int],), Box[str].__origin__ is Box


def typed():
    return Impl().run(), Typed(a=1), T.__name__, Number(4), Typed.__annotations__["a"] in (int, "x")


class Node:
    root = None
    next: "Node"

    def __init__(self, value):
        self.value = value
        self.children = [self]


Node.root = Node(0)


def cyclic():
    return Node.root.children[0] is Node.root, type(Node.root) is Node


class Callable:
    n = 0

    def __call__(self, x):
        Callable.n += 1
        return Callable.n


def kind(obj):
    return type(obj), obj


def main(worker):
    global factor
    assert worker.call(get, Derived(3, 4)) == 64
    made = worker.call(make, 3)
    assert type(made) is Derived and (made.x, made.y) == (3, 1)
    factor = 100
    assert worker.call(get, Derived(3, 4)) == 604
    assert worker.call(Derived(3, 4).get) == 604
    assert type(worker.call(overwrite, Derived(1, 2))) is Derived and Base.scale == 2
    filled = worker.call(fill, MoreSlots())
    assert type(filled) is MoreSlots and (filled.c, filled.sum()) == (5, 3)
    objects = [Square(3), Box(3), IntBox(2), Outer.Inner.Deep(), Registered(), UnderMeta()]
    for obj in [*objects, Outer.Inner.Deep, Node.root]:
        cls, back = worker.call(kind, obj)
        assert cls is type(obj) and type(back) is cls, obj
    assert worker.call(Outer.Inner.Deep.method, Outer.Inner.Deep()) == "Outer.Inner.Deep"
    assert worker.call(abstract) == (18, True)
    assert worker.call(metaclass) == ("hello", ["WithMeta", "UnderMeta"], True)
    assert worker.call(registry) == ([("First", "a", 1), ("Second", "b", 2)], 1)
    assert worker.call(extend_registry) == ("Third", "c", 3)
    assert worker.call(described) == ("field", ["field"])
    assert worker.call(generics) == (2, True, True)
    assert worker.call(typed)[:4] == (1, {"a": 1}, "T", 4)
    assert worker.call(cyclic) == (True, True)
    assert [worker.call(Callable(), 0) for _ in range(2)] == [1, 2] and Callable.n == 0


run(main)
