# SPDX-License-Identifier: Apache-2.0
"""Read a tree of Python source with a pool of processes: statistics and a word index.

An ordinary program: it imports `multiprocessing`, and nothing of shoal.

    python examples/corpus.py                     # the interpreter's own standard library
    shoal run examples/corpus.py                  # the same program on shoal
    shoal compare examples/corpus.py              # both, interleaved, with medians
    python examples/corpus.py --top 20 ~/src      # any other tree

Each file is tokenised and parsed in a worker, which sends back the file's statistics and an index
of its words (every identifier, keyword and word of a comment or string, with the lines on which it
stands). The parent merges them. The output, which begins with a checksum, depends only on the tree:
not on the order of results, the number of processes or the run. Times go to stderr.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import multiprocessing
import os
import re
import sys
import sysconfig
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

WORD = re.compile(r"[^\W\d_]{2,}")
BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
WORDY = {tokenize.NAME, tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", ".git"}


@dataclass
class FileReport:
    """What a worker finds in one file."""

    path: str
    status: str = "parsed"
    counts: Counter[str] = field(default_factory=Counter)
    words: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class CorpusReport:
    """All files together. Merging is commutative: the order of the results does not matter."""

    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    occurrences: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    files: list[tuple[int, str]] = field(default_factory=list)

    def add(self, report: FileReport) -> None:
        self.counts.update(report.counts)
        self.statuses[report.status] += 1
        self.files.append((report.counts["tokens"], report.path))
        for word, lines in report.words.items():
            self.occurrences[word] += len(lines)
            self.places.setdefault(word, []).append((report.path, lines[0]))

    def checksum(self) -> str:
        """A digest of every count and every place of every word."""
        digest = hashlib.sha256()
        digest.update(repr(sorted(self.counts.items())).encode())
        digest.update(repr(sorted(self.statuses.items())).encode())
        for word in sorted(self.places):
            line = f"{word} {self.occurrences[word]} {sorted(self.places[word])}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def index_words(text: str, report: FileReport) -> None:
    """Tokenise `text`; note every word with its lines."""
    words, tokens, comments = report.words, 0, 0
    for kind, string, (line, _), _, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        tokens += 1
        comments += kind == tokenize.COMMENT
        if kind in WORDY:
            for word in WORD.findall(string):
                words.setdefault(word.lower(), []).append(line)
    report.counts.update(tokens=tokens, comments=comments)


def count_statements(tree: ast.Module, report: FileReport) -> None:
    """Count what the parser found, and note how deep statements are nested."""
    counts = report.counts
    stack: list[tuple[ast.AST, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        counts["functions"] += isinstance(node, FUNCTIONS)
        counts["classes"] += isinstance(node, ast.ClassDef)
        counts["branches"] += isinstance(node, BRANCHES)
        counts["deep"] += depth > 5
        for block in BLOCKS:
            children = getattr(node, block, ())
            counts["statements"] += len(children)
            stack.extend((child, depth + 1) for child in children)


def read_file(task: tuple[str, str]) -> FileReport:
    """The task of a worker: one file, whatever is in it."""
    root, name = task
    report = FileReport(name)
    try:
        with open(os.path.join(root, name), "rb") as file:
            raw = file.read()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = io.TextIOWrapper(io.BytesIO(raw), encoding).read()
        report.counts.update(bytes=len(raw), lines=text.count("\n"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index_words(text, report)
            count_statements(ast.parse(text), report)
    except (UnicodeError, LookupError):
        report.status = "bad encoding"
    except (SyntaxError, tokenize.TokenError, ValueError):
        report.status = "bad encoding" if not report.counts else "syntax error"
    except (RecursionError, MemoryError):
        report.status = "too deep for the parser"
    except OSError:
        report.status = "unreadable"
    return report


def find_sources(root: str) -> Iterator[str]:
    """Names of the Python files under `root`, in a fixed order."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), root)


def spread(names: list[str], count: int) -> list[str]:
    """At most `count` of the names, at even distances."""
    count = min(max(count, 0), len(names))
    return [names[number * len(names) // count] for number in range(count)]


def print_report(report: CorpusReport, root: str, top: int) -> None:
    """The table. Nothing in it depends on time or on the machine's load."""
    counts = report.counts
    print(f"{len(report.files):,} files of {root}")
    for name in sorted(counts):
        print(f"  {name:<24} {counts[name]:>13,}")
    for status in sorted(report.statuses):
        print(f"  {'files ' + status:<24} {report.statuses[status]:>13,}")
    occurrences = sum(report.occurrences.values())
    print(f"{len(report.places):,} words at {occurrences:,} places; the most frequent:")
    frequent = sorted(report.occurrences.items(), key=lambda item: (-item[1], item[0]))
    for word, count in frequent[:top]:
        print(f"  {word:<24} {count:>9,}   in {len(report.places[word]):>6,} files")
    print("the largest files:")
    largest = sorted(report.files, key=lambda item: (-item[0], item[1]))
    for tokens, path in largest[:top]:
        print(f"  {path:<48} {tokens:>9,} tokens")
    print(f"checksum {report.checksum()}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Statistics and word index of a source tree.")
    parser.add_argument(
        "path",
        nargs="?",
        default=sysconfig.get_path("stdlib"),
        help="the tree to read (default: this Python's standard library)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=None,
        metavar="N",
        help="workers (default: one for each CPU)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=8,
        metavar="N",
        help="how many words and files to list (default: 8)",
    )
    parser.add_argument(
        "--files",
        type=int,
        default=None,
        metavar="N",
        help="read N files, spread over the tree (default: all)",
    )
    options = parser.parse_args()
    if not os.path.isdir(options.path):
        parser.error(f"not a folder: {options.path}")

    started = time.perf_counter()
    names = list(find_sources(options.path))
    if options.files is not None:
        names = spread(names, options.files)
    tasks = [(options.path, name) for name in names]
    report = CorpusReport()
    with multiprocessing.Pool(options.processes) as pool:
        for file_report in pool.imap_unordered(read_file, tasks):
            report.add(file_report)
    print_report(report, options.path, options.top)
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
