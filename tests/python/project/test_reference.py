# SPDX-License-Identifier: Apache-2.0
"""Nothing is forgotten on the reference's pages: public names, commands and their options,
environment variables.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import shoal
from shoal import cli

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "docs" / "reference"
VARIABLE = re.compile(r"\"(SHOAL_[A-Z_]+)[\"=]")  # quoted: in code, not a macro


def described() -> set[str]:
    """What the pages render the docstrings of, by the name as it is written there."""
    text = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    return set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))


def in_backticks(page: str) -> set[str]:
    """The words that stand in backticks on a page."""
    quoted = re.findall(r"`([^`\n]+)`", (REFERENCE / page).read_text())
    return {word for text in quoted for word in re.split(r"[\s,|/]+", text)}


def test_every_public_name_is_described() -> None:
    names = {*shoal.__all__, *shoal.errors.__all__}
    assert {f"shoal.{name}" for name in names} - described() == set()


def test_every_error_is_in_the_tree() -> None:
    tree = (REFERENCE / "errors.md").read_text().partition("```text")[2].partition("```")[0]
    assert set(re.findall(r"^(?:\+-- )?(\w+)", tree, re.MULTILINE)) == set(shoal.errors.__all__)


def test_what_the_drop_in_has_of_its_own_is_named() -> None:
    own = vars(shoal.multiprocessing._Factories)
    names = {name for name in own if not name.startswith("_")}
    assert names - in_backticks("install.md") == set()


def test_the_joblib_adapter_is_described() -> None:
    adapter = pytest.importorskip("shoal.adapters.joblib")
    assert {"shoal.adapters.joblib.register", "shoal.adapters.joblib.BatchDied"} <= described()
    assert in_backticks("joblib.md") >= adapter._OPTIONS


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name
                yield from options(command)


def test_every_command_and_option_is_described() -> None:
    missing = set(options(cli._make_parser())) - in_backticks("command_line.md")
    assert missing == set()


def test_each_option_stands_below_its_command() -> None:
    sections = dict(
        re.findall(r"^## shoal (\w+)\n(.*?)(?=^## |\Z)", command_page(), re.MULTILINE | re.DOTALL)
    )
    (commands,) = (a for a in cli._make_parser()._actions if a.dest == "command")
    assert commands.choices is not None
    for name, parser in commands.choices.items():
        for option in options(parser):
            assert option in ("-h", "--help") or f"`{option}" in sections[name], (name, option)


def command_page() -> str:
    return (REFERENCE / "command_line.md").read_text()


def test_every_environment_variable_is_described() -> None:
    found = set()
    for folder in ("python", "src", "bindings"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pth", ".cpp", ".hpp"):
                found |= set(VARIABLE.findall(path.read_text()))
    assert {"SHOAL_RUN", "SHOAL_DECAY", "SHOAL_JOBLIB"} <= found
    named = set(re.findall(r"`(SHOAL_[A-Z_]+)", (REFERENCE / "environment.md").read_text()))
    assert found - named == set(), "not on the page"
    assert named - found == set(), "on the page, and nothing reads it"


def signature(method: object) -> str:
    """Methods in C have it in the first line of their docstrings."""
    if inspect.isfunction(method):
        return str(inspect.signature(method))
    return (getattr(method, "__doc__", None) or "").partition("\n")[0]


def test_every_method_with_a_timeout_is_in_the_table() -> None:
    """What `timeout=` means differs from verb to verb."""
    classes = [found for name in shoal.__all__ if isinstance(found := getattr(shoal, name), type)]
    verbs = {
        name
        for cls in classes
        for name in dir(cls)
        if not name.startswith("_") and "timeout" in signature(getattr(cls, name))
    }
    assert {"apply", "acquire", "get", "result"} <= verbs
    table = (REFERENCE / "timeouts.md").read_text()
    assert [verb for verb in sorted(verbs) if not re.search(rf"\b{verb}\b", table)] == []
