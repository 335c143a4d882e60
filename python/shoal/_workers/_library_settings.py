# SPDX-License-Identifier: Apache-2.0
"""Settings that libraries keep per process or thread, for a clean template to take over.

A snapshot has these settings anyway. Without this module the same task would round, warn or log
differently, only because another thread happened to run while the pool was made. Each provider is a
pair of functions: one yields plain picklable parts in the client, the other applies such parts in
the template. A part that cannot be pickled or applied is skipped; nothing here raises. Handlers of
loggers are not taken over, because they own files and sockets.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Part = tuple[Any, ...]


def _interpreter() -> Iterator[Part]:
    yield "switch", sys.getswitchinterval()
    yield "gc", gc.get_threshold(), gc.isenabled()
    digits = getattr(sys, "get_int_max_str_digits", None)
    if digits is not None:
        yield "digits", digits()


def _set_interpreter(what: str, *values: Any) -> None:
    if what == "switch":
        sys.setswitchinterval(values[0])
    elif what == "gc":
        gc.set_threshold(*values[0])
        (gc.enable if values[1] else gc.disable)()
    else:
        sys.set_int_max_str_digits(values[0])


def _warnings() -> Iterator[Part]:
    yield "begin", None
    yield from (("filter", entry) for entry in sys.modules["warnings"].filters)


class _Nothing(Warning):
    """A warning category that nothing uses."""


def _set_warnings(what: str, entry: Any) -> None:
    warnings = sys.modules["warnings"]
    if what == "begin":
        warnings.filters.clear()
    else:
        warnings.filters.append(entry)
    # Adding and removing a filter makes the C code notice the change.
    warnings.filterwarnings("default", category=_Nothing)
    del warnings.filters[0]


def _decimal() -> Iterator[Part]:
    yield (sys.modules["decimal"].getcontext(),)


def _set_decimal(context: Any) -> None:
    sys.modules["decimal"].setcontext(context)


def _locale() -> Iterator[Part]:
    locale = sys.modules["locale"]
    yield (locale.setlocale(locale.LC_ALL),)


def _set_locale(names: str) -> None:
    locale = sys.modules["locale"]
    if locale.setlocale(locale.LC_ALL) != names:
        locale.setlocale(locale.LC_ALL, names)


def _logging() -> Iterator[Part]:
    logging = sys.modules["logging"]
    yield "disable", logging.root.manager.disable
    yield None, logging.root.level, logging.root.disabled, True
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, logger.level, logger.disabled, logger.propagate


def _set_logging(name: str | None, level: int, *flags: bool) -> None:
    logging = sys.modules["logging"]
    if name == "disable" and not flags:
        logging.disable(level)
        return
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.disabled, logger.propagate = flags


def _numpy() -> Iterator[Part]:
    numpy = sys.modules["numpy"]
    yield "errors", numpy.geterr()
    options = numpy.get_printoptions()
    yield from (("print", {name: value}) for name, value in options.items())


def _set_numpy(what: str, options: dict[str, Any]) -> None:
    numpy = sys.modules["numpy"]
    (numpy.seterr if what == "errors" else numpy.set_printoptions)(**options)


def _faulthandler() -> Iterator[Part]:
    yield (sys.modules["faulthandler"].is_enabled(),)


def _set_faulthandler(enabled: bool) -> None:
    if enabled:
        sys.modules["faulthandler"].enable()


# By the module that must have been imported. Applied in this order.
_PROVIDERS: dict[str, tuple[Callable[[], Iterator[Part]], Callable[..., None]]] = {
    "sys": (_interpreter, _set_interpreter),
    "faulthandler": (_faulthandler, _set_faulthandler),
    "locale": (_locale, _set_locale),
    "decimal": (_decimal, _set_decimal),
    "logging": (_logging, _set_logging),
    "numpy": (_numpy, _set_numpy),
    "warnings": (_warnings, _set_warnings),
}


def capture() -> list[tuple[str, bytes]]:
    """The settings of this process and thread: (provider, pickled part)."""
    found = []
    for name, (parts, _) in _PROVIDERS.items():
        if name not in sys.modules:
            continue
        with contextlib.suppress(Exception):
            for part in parts():
                with contextlib.suppress(Exception):
                    found.append((name, pickle.dumps(part)))
    return found


def apply(settings: list[tuple[str, bytes]]) -> None:
    """Apply the settings of the modules that are imported here."""
    for name, part in settings:
        if name in sys.modules:
            with contextlib.suppress(Exception):
                _PROVIDERS[name][1](*pickle.loads(part))
