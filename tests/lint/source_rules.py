"""Rules about C++ text: who may include whom, length, headers, macros, a silent core."""
import pathlib
import re

from tree import HEADER, blank, numbered

# The layers of the core, bottom first: a layer includes itself and what stands to its left.
LAYERS = ["base", "tensor", "io", "config", "text", "data", "check", "nn", "model", "eval", "optim", "train", "analysis",
          "report", "cli"]
# Only these include the ops of kernels/ ...
MAY_USE_OPS = {"tensor", "nn", "optim"}
# ... and these besides may name a dtype or describe memory without running anything.
MAY_USE_VIEWS = MAY_USE_OPS | {"io", "config"}
VIEW_HEADERS = {"kernels/types.h", "kernels/view.h"}

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]*)"')
TOPS = ("kernels/", "libcore/", "tools/", "tests/", "bench/")


def includes(tree):
    """The include table."""
    known = set(tree.files)
    for name in tree.cpp(*TOPS):
        for number, line in numbered(tree.read(name)):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1)
            if target not in known:
                yield name, number, (f'"{target}" is no file of the project, seen from its root; '
                                     "includes are root-relative, other libraries go in <>")
                continue
            reason = forbidden(name, target)
            if reason:
                yield name, number, f'"{target}": {reason}'


def forbidden(name, target):
    """Why file `name` must not include `target`; None when it may."""
    source, goal = name.split("/"), target.split("/")
    if source[0] == "tests":
        return None
    if goal[0] in ("tests", "bench"):
        return "only tests include tests"
    if source[0] == "kernels":
        return None if goal[0] == "kernels" else "kernels/ includes nothing above it"
    if goal[0] == "kernels" and len(goal) > 2:
        return "a backend's own header stays inside kernels/"
    if source[0] == "tools":
        if goal[0] == "kernels":
            return "a tool reaches kernels through libcore/"
        if goal[0] == "tools" and goal[1] != source[1]:
            return "a tool knows no other tool"
        return None
    if source[0] == "bench":
        return "bench includes no tool" if goal[0] == "tools" else None
    # libcore from here on.
    if goal[0] == "tools":
        return "libcore/ knows no tool"
    layer = source[1]
    if layer not in LAYERS:
        return f"libcore/{layer} is no layer of the table in tests/lint/source_rules.py"
    if goal[0] == "kernels":
        allowed = MAY_USE_VIEWS if target in VIEW_HEADERS else MAY_USE_OPS
        return None if layer in allowed else f"of libcore/, only {', '.join(sorted(allowed))} include it"
    if goal[1] not in LAYERS:
        return f"libcore/{goal[1]} is no layer of the table in tests/lint/source_rules.py"
    if LAYERS.index(goal[1]) > LAYERS.index(layer):
        return f"libcore/{goal[1]} stands above libcore/{layer}"
    return None


SOFT_LINES, HARD_LINES = 400, 800
COUNTED = {".h", ".cpp", ".cu", ".cuh", ".def", ".py", ".cmake"}


def length(tree):
    """Files over the hard limit are findings; those over the soft limit are reported."""
    for name in tree.files:
        path = pathlib.PurePosixPath(name)
        if path.suffix not in COUNTED and path.name != "CMakeLists.txt" and not (
                path.suffix == "" and tree.is_script(name, "sh", "python")):
            continue
        lines = tree.read(name).count("\n")
        if lines > HARD_LINES:
            yield name, lines, f"{lines} lines; at most {HARD_LINES}"
        elif lines > SOFT_LINES:
            print(f"note: {name}: {lines} lines, over the soft limit of {SOFT_LINES}")


def headers(tree):
    """Headers: '#pragma once', no conditional compilation."""
    for name in tree.cpp():
        if pathlib.PurePosixPath(name).suffix not in HEADER:
            continue
        text = blank(tree.read(name))
        if not re.search(r"^#pragma once$", text, re.MULTILINE):
            yield name, 1, "no '#pragma once'"
        for number, line in numbered(text):
            if re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b", line):
                yield name, number, "conditional compilation in a header; a missing backend is a source file"


# Consumers of kernels/ops.def define these two for it, and nothing else is a function-like macro.
OPS_MACROS = {"DSK_CPU_OP", "DSK_CPU_CUDA_OP"}


def macros(tree):
    """No function-like macro but the two that kernels/ops.def is read with."""
    for name in tree.cpp():
        text = blank(tree.read(name))
        reads_ops = '#include "kernels/ops.def"' in text
        for number, line in numbered(text):
            match = re.match(r"\s*#\s*define\s+(\w+)\(", line)
            if match and not (reads_ops and match.group(1) in OPS_MACROS):
                yield name, number, f"function-like macro {match.group(1)}; write a function or template"


# A plain or std:: call, not a member and not another namespace's function of that name.
SPEAKS = re.compile(
    r"(?<![\w.:>])(?:std::|::)?(printf|vprintf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|abort|terminate"
    r"|getenv|secure_getenv|setenv|unsetenv|putenv|system)\s*\("
    r"|\bstd::(cout|cerr|clog|wcout|wcerr)\b|\b(fmt::print)\b|\b(stdout|stderr|STDOUT_FILENO|STDERR_FILENO)\b"
    r"|\b(argv|environ)\b|#\s*include\s*<(iostream)>")


def silence(tree):
    """The core and the kernels throw; they never print, exit or read the environment."""
    for name in tree.cpp("kernels/", "libcore/"):
        if name.startswith("libcore/cli/"):
            continue
        for number, line in numbered(blank(tree.read(name))):
            match = SPEAKS.search(line)
            if match:
                word = next(group for group in match.groups() if group)
                yield name, number, f"'{word}': only libcore/cli and tools print, exit or read the environment"
