#!/usr/bin/env python3
"""Rewrites dependencies.toml from a checkout of the RustSec advisory database.

    python3 scripts/advisories.py PATH_OF_THE_CHECKOUT

For each crate of Cargo.lock it finds the lowest version without an applicable advisory. A crate
without an advisory is listed as clear. The licences and the comments above them are kept.
"""

import pathlib
import re
import subprocess
import sys
import tomllib


def locked():
    """Each foreign crate of Cargo.lock with all its versions."""
    versions = {}
    for package in tomllib.loads(pathlib.Path("Cargo.lock").read_text())["package"]:
        if "source" in package:
            versions.setdefault(package["name"], []).append(version(package["version"]))
    return sorted(versions.items())


def version(text):
    """A version as a tuple that sorts as versions do: a pre-release comes before its release."""
    number, _, pre_release = text.split("+")[0].partition("-")
    return tuple(int(part) for part in number.split(".")), not pre_release, pre_release


def meets(found, condition):
    operator, bound = re.fullmatch(r"\s*(>=|<=|>|<|=|\^)?\s*(\S+)\s*", condition).groups()
    bound, number = version(bound), version(bound)[0]
    if operator in (None, "^"):
        same = next((i for i, part in enumerate(number) if part), len(number) - 1) + 1
        return found >= bound and found[0][:same] == number[:same]
    return {">=": found >= bound, "<=": found <= bound, ">": found > bound, "<": found < bound, "=": found == bound}[operator]


def floor(advisories, versions):
    """The lowest version that is safe for the same reason as the oldest of `versions`."""
    lowest = version("0.0.0")
    for advisory in advisories:
        for found in versions:
            ranges = advisory["versions"].get("patched", []) + advisory["versions"].get("unaffected", [])
            safe = [r for r in ranges if all(meets(found, condition) for condition in r.split(","))]
            if not safe:
                number = ".".join(map(str, found[0]))
                sys.exit(f"{advisory['advisory']['package']} {number}: {advisory['advisory']['id']} applies; patched: {ranges}")
        bounds = [version(b) for b in re.findall(r"(?:>=|>|\^)\s*([0-9][^ ,]*)", safe[0])]
        lowest = max([lowest, *bounds])
    return ".".join(map(str, lowest[0]))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    database = pathlib.Path(sys.argv[1])
    day = subprocess.run(["git", "-C", database, "log", "-1", "--format=%cs"], capture_output=True, text=True, check=True).stdout.strip()
    floors, clear = [], []
    for name, versions in locked():
        advisories = []
        for path in sorted((database / "crates" / name).glob("RUSTSEC-*.md")):
            advisory = tomllib.loads(path.read_text().split("```toml")[1].split("```")[0])
            if "withdrawn" not in advisory["advisory"] and advisory["advisory"].get("informational") in (None, "unsound"):
                advisories.append(advisory)
        if advisories:
            ids = [advisory["advisory"]["id"] for advisory in advisories]
            floors.append(f'{name} = "{floor(advisories, versions)}" # {ids[-1]}' + (" and earlier" if len(ids) > 1 else ""))
        else:
            clear.append(f'    "{name}",')
    file = pathlib.Path("dependencies.toml")
    head = re.sub(r'advisories_as_of = ".*"', f'advisories_as_of = "{day}"', file.read_text())
    head = re.split(r"\n# Crates of Cargo.lock without", head)[0]
    file.write_text(head + "\n# Crates of Cargo.lock without an advisory on that day.\nclear = [\n" + "\n".join(clear)
                    + "\n]\n\n# The lowest version of each other crate from which on no advisory applies.\n[floors]\n" + "\n".join(floors) + "\n")


main()
