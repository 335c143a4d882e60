# SPDX-License-Identifier: Apache-2.0
"""Classes that travelled by value, by name: a class that comes back is the class that left.

Module state: `tokens` and `_by_token`.
"""

from __future__ import annotations

import os
import weakref

from shoal._pickling import _names

tokens: _names.IdentityMap = _names.IdentityMap()
_by_token: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


def token_of(cls: type) -> str:
    """The name of a class that has none: the same in every process that it reaches."""
    token: str | None = tokens.get(cls)
    if token is None:
        token = os.urandom(12).hex()
        remember(cls, token)
    return token


def remember(cls: type, token: str) -> None:
    tokens.set(cls, token)
    _by_token[token] = cls


def class_of(token: str) -> type | None:
    return _by_token.get(token)
