# SPDX-License-Identifier: Apache-2.0
"""Enumerations, named tuples, data classes: equal, and identical where they must be."""

import collections
import dataclasses
import enum
import typing

from process_pair import run


class Color(enum.Enum):
    RED = 1
    GREEN = "g"

    def lower(self):
        return self.name.lower()


class Permission(enum.Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


class Planet(enum.Enum):
    EARTH = (1, 2)
    MARS = (3, 4)

    def __init__(self, a, b):
        self.a = a
        self.b = b

    @property
    def sum(self):
        return self.a + self.b


class Status(enum.IntEnum):
    def __new__(cls, code, phrase):
        member = int.__new__(cls, code)
        member._value_ = code
        member.phrase = phrase
        return member

    OK = 200, "fine"
    ALSO = 200, "alias"
    MISSING = 404, "not there"


class Text(str, enum.Enum):
    A = "a"
    B = "b"


class Bits(enum.IntFlag):
    A = 1
    B = 2
    BOTH = 3


class Coded(enum.Enum):
    def __new__(cls, code, text):
        member = object.__new__(cls)
        member._value_ = code
        member.text = text
        return member


class Codes(Coded):
    ONE = 1, "one"


@dataclasses.dataclass
class Plain:
    a: int
    b: list = dataclasses.field(default_factory=list)

    @property
    def double(self):
        return self.a * 2


@dataclasses.dataclass
class Child(Plain):
    c: "dataclasses.InitVar[int]" = 3
    d: typing.ClassVar[int] = 4


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    a: int
    b: "int" = 3


@dataclasses.dataclass(frozen=True, order=True)
class Owner:
    plain: Frozen
    others: tuple = ()


class Shade(enum.Enum):
    DARK = Frozen(1)
    LIGHT = Frozen(2)


Classic = collections.namedtuple("Classic", "x y", defaults=[7])


class Typed(typing.NamedTuple):
    x: int
    y: str = "d"

    def both(self):
        return (self.x, self.y)

    def __repr__(self):
        return "Typed!"


class Under(collections.namedtuple("Under", "a b")):
    __slots__ = ()

    def sum(self):
        return self.a + self.b


def kind(obj):
    return type(obj), obj


def enums():
    return (
        [Color.RED.lower(), Color("g").name, Planet.EARTH.sum, Planet((3, 4)).name],
        [Status.OK.phrase, Status(404).phrase, Status.ALSO is Status.OK, [s.name for s in Status]],
        [Text.A.upper(), Text("b").name, int(Bits.A | Bits.B), Bits(3).name, Codes.ONE.text],
        [Shade(Frozen(2)).name, (Permission.READ | Permission.WRITE).value, Permission(5).value],
    )


def data():
    return (
        [Plain(1), Plain(3).double, [f.name for f in dataclasses.fields(Child)]],
        [dataclasses.asdict(Child(5, [1])), dataclasses.replace(Plain(2), a=9), Frozen(4)],
        [Classic(1).y, Typed(1).both(), repr(Typed(2)), Under(1, 2).sum(), Classic._field_defaults],
        [Owner(Frozen(1)) < Owner(Frozen(1), (2,)) if False else Owner(Frozen(1))],
    )


def main(worker):
    members = [*Color, *Planet, *Status, *Text, *Bits, *Codes, *Shade, *Permission]
    members += [Permission.READ | Permission.EXECUTE, Bits.A]
    values = [Plain(1, [2]), Frozen(1), Classic(1), Typed(1), Under(1, 2), Owner(Frozen(2))]
    for obj in [*members, *values]:
        cls, back = worker.call(kind, obj)
        assert cls is type(obj) and type(back) is cls, obj
        assert back == obj
        assert not isinstance(obj, enum.Enum) or back is obj, obj
    assert worker.call(enums) == enums()
    assert worker.call(data) == data()


run(main)
