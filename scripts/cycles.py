#!/usr/bin/env python3
"""Finds modules that depend on each other in a circle, in every crate.

    scripts/cycles.py                the cycles; fails if there is one below a module not in KNOWN
    scripts/cycles.py --edges PATH   what each module below PATH depends on

Siblings are compared: modules of one parent, each with all that is below it. A module may use its
parent's own items and a parent its children; tests do not count.
"""

import pathlib
import re
import sys

# Modules whose children still have cycles. Remove a module when its cycles are gone.
KNOWN: set[str] = set()

PATH = re.compile(r"\b((?:crate|self|super)(?:::[A-Za-z_][A-Za-z0-9_]*)+)")
USE = re.compile(r"^\s*(pub(?:\([a-z ]+\))?\s+)?use\s+([^;]+);", re.M)
MOD = re.compile(r"^(?:#\[cfg\(test\)\]\s*)?(?:pub(?:\([a-z ]+\))?\s+)?mod\s+([a-z0-9_]+);", re.M)
TEST_MOD = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z ]+\))?\s+)?mod\s+([a-z0-9_]+)\s*([;{])")


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def without_tests(text):
    """The text up to its unit tests, and the names of the files that are compiled for tests only."""
    only_tests = {found.group(1) for found in TEST_MOD.finditer(text) if found.group(2) == ";"}
    inline = next((it for it in TEST_MOD.finditer(text) if it.group(2) == "{"), None)
    return (text[: inline.start()] if inline else text), only_tests


def expand(tree, prefix=""):
    """`a::{b, c::{d}}` as `a::b`, `a::c::d`; a rename counts as what it renames."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        yield prefix + tree.split(" as ")[0].strip()
        return
    head, inside, depth, part = prefix + tree[:brace], tree[brace + 1 : tree.rfind("}")], 0, ""
    for letter in inside + ",":
        if letter == "," and depth == 0:
            if part.strip():
                yield from expand(part, head)
            part = ""
            continue
        depth += {"{": 1, "}": -1}.get(letter, 0)
        part += letter


def modules(src):
    """Each file as (path of its module, text without comments and tests)."""
    found, queue = {}, [((), src / "lib.rs"), ((), src / "main.rs")]
    while queue:
        path, file = queue.pop()
        if not file.exists():
            continue
        whole = without_comments(file.read_text(encoding="utf-8"))
        text, only_tests = without_tests(whole)
        found[path] = found.get(path, "") + text
        folder = file.parent if file.name in ("lib.rs", "main.rs", "mod.rs") else file.with_suffix("")
        for name in MOD.findall(text):
            if name not in only_tests:
                queue += [(path + (name,), folder / f"{name}.rs"), (path + (name,), folder / name / "mod.rs")]
    return found


def absolute(path, parts):
    """The path from the crate's root; none for what is outside of the crate."""
    base = list(path)
    if parts[0] == "crate":
        base, parts = [], parts[1:]
    elif parts[0] not in ("self", "super"):
        return None
    while parts and parts[0] in ("self", "super"):
        if parts[0] == "super":
            base = base[:-1]
        parts = parts[1:]
    return tuple(base) + tuple(parts)


def paths_of(path, text, known):
    """Every path of this crate that the text names, and whether it is given on by `pub use`."""
    for found in USE.finditer(text):
        for full in expand(re.sub(r"\s+", " ", found.group(2))):
            parts = full.replace(" ", "").split("::")
            # A child may be named without `self`.
            if path + (parts[0],) in known:
                parts = ["self"] + parts
            target = absolute(path, parts)
            if target:
                yield target, bool(found.group(1))
    for found in PATH.finditer(USE.sub("", text)):
        target = absolute(path, found.group(1).split("::"))
        if target:
            yield target, False


def edges_of(src):
    known = modules(src)
    named = {path: list(paths_of(path, text, known)) for path, text in known.items()}
    given_on = {path + (it[-1],): it for path, its in named.items() for it, is_public in its if is_public and it}
    edges = set()
    for path, its in named.items():
        for target, _ in its:
            for _ in range(8):
                if target in known or target not in given_on or given_on[target] == target:
                    break
                target = given_on[target]
            while target and target not in known:
                target = target[:-1]
            if target != path:
                edges.add((path, target))
    return edges


def siblings(edges):
    """For each parent, which of its children depend on which."""
    graphs = {}
    for source, target in edges:
        common = 0
        while common < min(len(source), len(target)) and source[common] == target[common]:
            common += 1
        if common < min(len(source), len(target)):
            graph = graphs.setdefault(source[:common], {})
            graph.setdefault(source[common], set()).add(target[common])
    return graphs


def circles(graph):
    """The groups of nodes that reach each other."""
    def reached(start):
        seen, queue = set(), list(graph.get(start, ()))
        while queue:
            node = queue.pop()
            if node not in seen:
                seen.add(node)
                queue += graph.get(node, ())
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph}
    return [group for group in groups if group]


def main():
    crates = sorted(it.parent for it in pathlib.Path("crates").glob("*/Cargo.toml"))
    if "--edges" in sys.argv:
        below = pathlib.Path(sys.argv[-1]).parts
        src, prefix = pathlib.Path(*below[:3]), below[3:]
        for source, target in sorted(edges_of(src)):
            if source[: len(prefix)] == prefix:
                print("::".join(source) or "crate", "->", "::".join(target) or "crate")
        return 0
    is_new, mended = False, set(KNOWN)
    for crate in crates:
        for parent, graph in sorted(siblings(edges_of(crate / "src")).items()):
            name = "::".join((crate.name,) + parent)
            for group in circles(graph):
                mended.discard(name)
                is_new |= name not in KNOWN
                print(f"{name}: {' '.join(sorted(group))}", "(known)" if name in KNOWN else "")
                for source in sorted(group):
                    print("   ", source, "->", " ".join(sorted(graph[source] & group)))
    for name in sorted(mended):
        print(f"{name} has no cycle: remove it from KNOWN in scripts/cycles.py")
    return int(is_new)


if __name__ == "__main__":
    sys.exit(main())
