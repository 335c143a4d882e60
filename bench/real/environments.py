# SPDX-License-Identifier: Apache-2.0
"""A private environment for each group of cases, made on demand beside the tree's own.

As in the tree's own environment, which `scripts/setup` makes, this tree's shoal is on its path, and
it has the start-up files that a wheel installs, so that `shoal run` works as for a user. An
environment is made again when its requirements, the interpreter or the tree's location change.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
SCRIPT = "#!{python}\nimport sys\n\nfrom shoal.cli import main\n\nsys.exit(main())\n"


class EnvironmentFailed(Exception):
    """An environment could not be made; the text says why and what to do."""


@dataclass(frozen=True)
class Environment:
    """An environment that is ready."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def shoal(self) -> Path:
        return self.folder / "bin" / "shoal"


@functools.cache
def environment_of(group: str) -> Environment:
    """The group's environment; the first call for a group may take minutes."""
    _require_built_core()
    requirements = REQUIREMENTS / f"{group}.txt"
    wanted = requirements.read_text() if requirements.exists() else ""
    tag = ".".join(map(str, sys.version_info[:3]))
    venvs = Path(os.environ.get("SHOAL_VENVS", TREE / ".venvs")).resolve()
    environment = Environment(venvs / f"real-{group}-{tag}")
    stamp = hashlib.sha256(f"{sys._base_executable}\n{TREE}\n{wanted}".encode()).hexdigest()
    stamp_file = environment.folder / ".stamp"
    if not stamp_file.exists() or stamp_file.read_text() != stamp:
        _make(environment, requirements if wanted else None)
        stamp_file.write_text(stamp)
    _put_shoal_into(environment)
    return environment


def _require_built_core() -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if not (TREE / "python" / "shoal" / f"_core{suffix}").exists():
        raise EnvironmentFailed(
            f"shoal's core is not built for Python {sys.version.split()[0]}: run scripts/build, or"
            " start the runner with the interpreter for which it is built (.venv/bin/python)"
        )


def _make(environment: Environment, requirements: Path | None) -> None:
    print(f"real: making {environment.folder.name} (once)", file=sys.stderr)
    shutil.rmtree(environment.folder, ignore_errors=True)
    create = [sys._base_executable, "-I", "-m", "venv", str(environment.folder)]
    _run(create if requirements else [*create, "--without-pip"])
    if requirements:
        pip = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check"]
        _run([*pip, "--quiet", "--requirement", str(requirements)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentFailed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def _put_shoal_into(environment: Environment) -> None:
    """The files that an installed wheel would have put there; cheap enough for every start of the
    runner.
    """
    site = next((environment.folder / "lib").glob("python3.*")) / "site-packages"
    _write(site / "shoal-development.pth", f"{TREE / 'python'}\n")
    for path_file in (TREE / "python").glob("*.pth"):
        _write(site / path_file.name, path_file.read_text())
    script = environment.folder / "bin" / "shoal-python"
    _write(script, SCRIPT.format(python=environment.python))
    script.chmod(0o755)
    # The compiled launcher starts the interpreter that the script beside it names.
    own = Path(sys.prefix) / "bin" / "shoal"
    if not environment.shoal.exists() or environment.shoal.read_bytes() != own.read_bytes():
        shutil.copy(own, environment.shoal)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
