"""Check the prose and the size of every tracked file: no private word, no long test name, no long module.

Run by ``make check``. The words are those of docs and messages that only this project's authors understood, each with
the field's term or a plain sentence in its place.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROSE = (".cff", ".ipynb", ".md", ".py", ".ts", ".tsx", ".yaml", ".yml")
LONGEST_TEST_NAME = 70  # characters
LONGEST_MODULE = 400  # lines
# What was written -> what to write.
WORDS = {
    r"\bdoors?\b": "edge proxy, or Envoy",
    r"\bguardians?\b": "reaper",
    r"\bkeepers?\b": "the class by its name",
    r"\b(is|are|was|were|be|been|being) told\b": "is reported, receives, knows",
    r"\bnobody (says|tells|else|asks|knows)\b": "is not configured, no other process",
    r"\bwhoever\b": "the user, the caller, the process",
    r"\bat hand\b": "cheap, local, available",
    r"\bof (none|no kind)\b": "no …, unsupported …",
    r"\bluck\b": "the reason itself",
    r"\bin peace\b": "on a normal exit",
    r"\bso many\b": "n, a given number of",
    r"\b(can|may|cannot|could|to) be had\b": "available, reachable",
    r"\bhow (it|they|this) (is|are) called\b": "its name",
    r"\b(is|are|was|were) said\b": "is stated, is shown",
    r"\b(to|as|for|of) whom\b": "the user, the identity",
    r"\b(in|of) whose\b": "a sentence of its own",
    r"^\s*(\"\"\")?one (more|less)\.": "register, unregister",
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def faults(path: Path) -> list[str]:
    """Return the faults of one file, each with its line and what to write instead."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
        f"{number}: {match[0].strip()!r}: write {better}"
        for number, line in enumerate(lines, 1)
        for pattern, better in WORDS.items()
        if (match := re.search(pattern, line, re.IGNORECASE))
    ]
    if path.suffix == ".py":
        names = (match[1] for line in lines if (match := re.match(r"\s*(?:async )?def (test_\w+)", line)))
        found += [
            f"{name}: longer than {LONGEST_TEST_NAME} characters" for name in names if len(name) > LONGEST_TEST_NAME
        ]
        if path.parts[len(ROOT.parts)].startswith(("eaf_", "benchmarks")) and len(lines) > LONGEST_MODULE:
            found.append(f"{len(lines)} lines, at most {LONGEST_MODULE}: split it by idea")
    return found


def main(names: list[str]) -> int:
    given = [Path(name).resolve() for name in names]
    checked = [each for each in given or tracked() if each.suffix in PROSE and each != Path(__file__).resolve()]
    found = [f"{path.relative_to(ROOT)}:{fault}" for path in checked for fault in faults(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
