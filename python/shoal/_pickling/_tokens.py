# SPDX-License-Identifier: Apache-2.0
"""Tokens that identify classes sent by value, so that a class that is sent back is recognized.

Module state: `tokens` and `_by_token`.
"""

from __future__ import annotations

import os
import weakref

from shoal._pickling import _names

tokens: _names.IdentityMap = _names.IdentityMap()
_by_token: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


def token_of(cls: type) -> str:
    """The token of a class. It is the same in every process that the class reaches."""
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
