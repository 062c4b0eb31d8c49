"""Worst-case stack from what the compiler says about every function."""

import re
from collections.abc import Sequence

from safectl.errors import VerificationError

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_USAGE = re.compile(r"(\d+) bytes \((\w+)\)")
_RETURN_ADDRESS_BYTES = 4  # at most; `.su` files of AVR leave it out


def stack_bound(graphs: Sequence[str], entry: str, *, library_bytes: int = 0) -> int:
    """Return the bytes of stack on the deepest path from a function.

    Args:
        graphs: Contents of the `.ci` files of all translation units.
        entry: Name of the function.
        library_bytes: What a routine of the compiler's own library takes, with all it calls; 0
            where there must be none. Such a routine is memcpy, memset or begins with two
            underscores.

    Raises:
        VerificationError: If a function on a path has a frame of unknown or varying size, or calls
            itself.
    """
    usage: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for graph in graphs:
        for title, label in _NODE.findall(graph):
            found = _USAGE.search(label)
            if found is not None:
                if found[2] != "static":
                    raise VerificationError(f"{title} has a stack frame that is {found[2]}")
                usage[title] = int(found[1])
        for source, target in _EDGE.findall(graph):
            calls.setdefault(source, set()).add(target)
    if library_bytes:
        called = {target for targets in calls.values() for target in targets}
        library = {name for name in called - set(usage) if _is_library(name)}
        usage |= dict.fromkeys(library, library_bytes)
    return _depth(entry, usage, calls, ())


def stack_sum(usages: Sequence[str], names: frozenset[str], *, library_bytes: int) -> int:
    """Return the bytes of the frames of some functions: a bound where none calls itself.

    For compilers without a call graph. That the code does not call itself is known from one that
    has it, because the C is the same.

    Args:
        usages: Contents of the `.su` files of all translation units (`-fstack-usage`).
        names: The functions that are linked.
        library_bytes: What a routine of the compiler's own library takes.

    Raises:
        VerificationError: If a frame has a varying size.
    """
    total = library_bytes
    for line in "\n".join(usages).split("\n"):
        if line:
            place, size, kind = line.split("\t")
            function = place.rpartition(":")[2]
            if function not in names:
                continue
            if kind != "static":
                raise VerificationError(f"{function} has a stack frame that is {kind}")
            total += int(size) + _RETURN_ADDRESS_BYTES
    return total


def _is_library(name: str) -> bool:
    return name.startswith("__") or name in ("memcpy", "memset")


def _depth(
    name: str, usage: dict[str, int], calls: dict[str, set[str]], path: tuple[str, ...]
) -> int:
    if name in path:
        raise VerificationError(f"{name} calls itself: {' -> '.join((*path, name))}")
    if name not in usage:
        raise VerificationError(f"the stack of {name} is not known; called by {' -> '.join(path)}")
    below = [_depth(target, usage, calls, (*path, name)) for target in calls.get(name, ())]
    return usage[name] + max(below, default=0)
