"""Includes go downward: a file includes only from its own part or from a lower floor, parts of
one floor do not know each other, and nothing goes in a circle."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)

FLOORS = [
    ["base"],
    ["config", "msg"],
    ["rtnl", "conn", "store"],
    ["steer"],
    ["link"],
    ["resolver", "queue", "program"],
    ["upstream"],
    ["exchange"],
    ["proxy", "replay", "relay"],
    ["daemon"],
    ["api"],
    ["main"],
]
FLOOR = {part: n for n, parts in enumerate(FLOORS) for part in parts}
GENERATED = ".skel.h"


def part_of(path):
    relative = path.relative_to(ROOT)
    if relative.parts[0] == "server":
        return relative.parts[1] if len(relative.parts) > 2 else relative.stem
    return relative.parts[0]


def sources():
    return sorted(p for top in ("server", "api", "bpf") for p in (ROOT / top).rglob("*.[ch]"))


def resolve(path, name):
    """Where the compiler finds it: beside the file, then in server/, in the root, in bpf/."""
    for folder in (path.parent, ROOT / "server", ROOT, ROOT / "bpf"):
        if (folder / name).is_file():
            return (folder / name).resolve()
    return None


def includes(path):
    return [(name, resolve(path, name)) for name in INCLUDE.findall(path.read_text())]


def may_include(part, other):
    if part == other:
        return True
    if other == "bpf":  # abi.h, see test_abi_is_for_steer_and_above
        return part in FLOOR
    return FLOOR[other] < FLOOR[part]


def test_every_part_has_a_floor():
    parts = {part_of(path) for path in sources()} - {"bpf"}
    assert parts == set(FLOOR)


def each_include():
    for path in sources():
        for name, target in includes(path):
            yield path, f"{path.relative_to(ROOT)}: {name}", name, target


def test_includes_go_downward():
    wrong = []
    for path, line, name, target in each_include():
        part = part_of(path)
        if name.endswith(GENERATED):
            if part != "steer":
                wrong.append(f"{line}: skeletons are steer's alone")
        elif target is None:
            wrong.append(f"{line}: not found")
        elif not may_include(part, part_of(target)):
            wrong.append(f"{line}: {part} may not know {part_of(target)}")
    assert not wrong, "\n".join(wrong)


def test_internal_headers_stay_inside():
    wrong = [
        line
        for path, line, _, target in each_include()
        if target and target.name == "internal.h" and part_of(target) != part_of(path)
    ]
    assert not wrong, "\n".join(wrong)


def test_abi_is_for_steer_and_above():
    wrong = []
    for path, line, _, target in each_include():
        part = part_of(path)
        if part == "bpf" or target is None or part_of(target) != "bpf":
            continue
        if target.name != "abi.h":
            wrong.append(f"{line}: is for BPF programs only")
        elif FLOOR[part] < FLOOR["steer"]:
            wrong.append(f"{line}: {part} is below steer")
    assert not wrong, "\n".join(wrong)


def test_nothing_goes_in_a_circle():
    graph = {path: [t for _, t in includes(path) if t] for path in sources()}
    done, on_the_way = set(), []

    def visit(path):
        if path in done:
            return
        assert path not in on_the_way, " -> ".join(str(p.relative_to(ROOT)) for p in on_the_way)
        on_the_way.append(path)
        for target in graph.get(path, []):
            visit(target)
        done.add(on_the_way.pop())

    for path in graph:
        visit(path)


def test_what_would_be_upward_is_seen():
    assert not may_include("base", "config")
    assert not may_include("config", "msg")
    assert not may_include("queue", "resolver")
    assert not may_include("daemon", "api")
    assert may_include("api", "daemon")
