# The commands of the project. PYTHON=python3.12 chooses an interpreter; the default is the newest
# CPython from 3.10 to 3.15 on this machine. Each command first installs and builds what is missing.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
export PYTHON

.PHONY: help demo test bench real build setup check format sanitize test-newer test-install \
  test-clang test-aarch64 wheels sdist docs compat clean

help:
	@echo 'make demo          ordinary programs under the standard library and under shoal, compared'
	@echo 'make test          build, then all tests'
	@echo 'make bench         measure shoal against the standard library'
	@echo 'make real          the same for programs of other people'
	@echo 'make check         style, layers, types'
	@echo 'make format        write the style instead of checking it'
	@echo 'make docs          the documentation as pages to look at, in build/docs; examples in it are tests'
	@echo 'make sanitize      C++ tests under ASan with UBSan, and under TSan'
	@echo 'make test-clang    C++ tests built by clang, warnings are errors'
	@echo 'make test-aarch64  C++ tests for aarch64, under emulation'
	@echo 'make test-install  build the wheel, test it in a clean environment'
	@echo 'make wheels        a wheel for each interpreter here, checked and tried, in dist/'
	@echo 'make sdist         the source distribution, tried by building from it, in dist/'
	@echo 'make test-newer    make test on CPython 3.14 and 3.15 in a Debian root of their own'
	@echo "make compat        CPython's own multiprocessing suites, run on shoal"
	@echo 'make clean         remove builds and environments'
	@echo 'PYTHON=python3.12 chooses the interpreter, as in: make test PYTHON=python3.12'

demo:
	@scripts/demo

test:
	@scripts/test

bench:
	@scripts/bench

real:
	@scripts/real

build:
	@scripts/build

setup:
	@scripts/setup

check:
	@scripts/check

format:
	@scripts/format

sanitize:
	@scripts/sanitize

test-clang:
	@scripts/test_clang

test-aarch64:
	@scripts/test_aarch64

test-install:
	@scripts/test tests/install

wheels:
	@scripts/wheels

sdist:
	@scripts/sdist

test-newer:
	@scripts/test_newer

docs:
	@scripts/docs

compat:
	@scripts/compat

clean:
	rm -rf build dist .venvs .venv python/shoal/_core*.so
