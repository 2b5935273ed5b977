#!/usr/bin/env python3
"""Counts the words in comments that make a component a person (CONTRIBUTING.md, "How it should read").

    scripts/words.py [PATH ...]      the share over all files, and the files with the most of them
    scripts/words.py --list PATH     each line that has one
"""

import pathlib
import re
import sys

WORDS = "whoever nobody somebody told said tell tells says word hear hears believe doubt".split()
SHARE_MAX = 0.002
COMMENT = re.compile(r"(?:^|\s)//[/!]?(.*)$")
ONE_WORD = re.compile(r"[A-Za-z][A-Za-z']*")


def comments(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = COMMENT.search(line)
        if found:
            # Names of code are not words of a sentence.
            yield number, re.sub(r"`[^`]*`", " ", found.group(1)), line.strip()


def main():
    arguments = [it for it in sys.argv[1:] if it != "--list"]
    roots = arguments or ["crates"]
    files = []
    for root in map(pathlib.Path, roots):
        files += sorted(root.rglob("*.rs")) if root.is_dir() else [root]
    total, hits = 0, []
    for path in files:
        found = 0
        for number, text, line in comments(path):
            words = [it.lower() for it in ONE_WORD.findall(text)]
            total += len(words)
            bad = [it for it in words if it in WORDS]
            found += len(bad)
            if bad and "--list" in sys.argv:
                print(f"{path}:{number}: {line}")
        hits.append((found, path))
    count = sum(found for found, _ in hits)
    share = count / max(total, 1)
    for found, path in sorted(hits, key=lambda it: -it[0])[:15]:
        if found and "--list" not in sys.argv:
            print(f"{found:5} {path}")
    print(f"{count} of {total} words in comments: {share:.2%}, at most {SHARE_MAX:.1%}")
    return 1 if share > SHARE_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
