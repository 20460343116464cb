"""Rules that other programs check: clang-format, clang-tidy, mandoc."""
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import time

from source_rules import INCLUDE


class MissingProgram(Exception):
    pass


def find(*names):
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise MissingProgram(f"{names[0]} is not installed (scripts/packages installs it)")


def formatting(tree):
    """clang-format 14 changes nothing. Another version would disagree about details."""
    program = find("clang-format-14", "clang-format")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if " 14." not in version:
        raise MissingProgram(f"clang-format 14 is needed, found: {version.strip()}")
    names = tree.cpp()
    if not names:
        return
    checked = subprocess.run([program, "--dry-run", "-Werror", "-style=file", *names], cwd=tree.root,
                             capture_output=True, text=True, check=False)
    seen = set()
    for match in re.finditer(r"^(\S+?):(\d+):\d+: error: ", checked.stderr, re.MULTILINE):
        if match.group(1) not in seen:
            seen.add(match.group(1))
            yield match.group(1), int(match.group(2)), "not formatted; run clang-format-14 -i on it"
    if checked.returncode != 0 and not seen:
        yield names[0], 1, f"clang-format failed: {checked.stderr.strip()[:400]}"


def manual(tree):
    """mandoc has no warning about a page. No page at all is a skip."""
    pages = [name for name in tree.files if re.fullmatch(r"man/[^/]+\.[157]", name)]
    if not pages:
        raise LookupError("no page under man/")
    program = find("mandoc")
    for name in pages:
        checked = subprocess.run([program, "-Tlint", "-W", "warning", name], cwd=tree.root, capture_output=True,
                                 text=True, check=False)
        for line in (checked.stdout + checked.stderr).splitlines():
            match = re.search(r":(\d+):\d+: (.*)", line)
            yield name, int(match.group(1)) if match else 1, match.group(2) if match else line


def closure(tree, name, cache):
    """The project files that a source reaches through its includes, itself first."""
    reached, open_names = {}, [name]
    while open_names:
        current = open_names.pop()
        if current in reached or not (tree.root / current).is_file():
            continue
        if current not in cache:
            text = tree.read(current)
            cache[current] = (hashlib.sha256(text.encode()).hexdigest(),
                              [match.group(1) for match in map(INCLUDE.match, text.split("\n")) if match])
        reached[current] = cache[current][0]
        open_names += cache[current][1]
    return reached


def newest_first(tree, names):
    """The names, those changed last in front: uncommitted ones, then by the time of their last commit."""
    log = subprocess.run(["git", "-c", f"safe.directory={tree.root}", "log", "--format=%x00%ct", "--name-only"],
                         cwd=tree.root, capture_output=True, text=True, check=False).stdout
    changed = subprocess.run(["git", "-c", f"safe.directory={tree.root}", "status", "--porcelain", "-uall"],
                             cwd=tree.root, capture_output=True, text=True, check=False).stdout
    when = {line[3:]: float("inf") for line in changed.splitlines()}
    for commit in log.split("\0")[1:]:
        moment, *files = commit.split("\n")
        for name in files:
            when.setdefault(name, float(moment))
    return sorted(names, key=lambda name: (-when.get(name, 0.0), name))


def tidy(tree, build_dir, jobs, budget):
    """clang-tidy over the sources of the core, the kernels and the tools, those changed last first.

    What passed is remembered in the build folder by the digest of everything it read of ours, so a second run
    looks at changed files only. After `budget` seconds (0: no limit) no further file is begun, and the number of
    those left is printed.
    """
    program = find("clang-tidy-14", "clang-tidy")
    database = build_dir / "compile_commands.json"
    if not database.is_file():
        raise MissingProgram(f"no compile_commands.json in {build_dir}; configure that folder first")
    commands = {}
    for entry in json.loads(database.read_text()):
        path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), tree.root)
        commands.setdefault(path, entry["command"])
    sources = [name for name in tree.cpp("kernels/", "libcore/", "tools/") if name.endswith(".cpp") and name in commands]
    settings = tree.read(".clang-tidy")
    memory = build_dir / "lint-tidy"
    memory.mkdir(exist_ok=True)
    digests = {}
    deadline = time.monotonic() + budget if budget else float("inf")
    count = {"looked at": 0, "known good": 0, "left for lack of time": 0}

    def check(name):
        key = json.dumps([settings, commands[name], closure(tree, name, digests)], sort_keys=True)
        stamp = memory / hashlib.sha256(key.encode()).hexdigest()
        if stamp.exists():
            return name, "known good", ""
        if time.monotonic() > deadline:
            return name, "left for lack of time", ""
        # clang knows most of gcc's flags; what it does not know is no finding.
        ran = subprocess.run([program, "-p", build_dir, "--quiet", "--extra-arg=-Wno-unknown-warning-option",
                              "--extra-arg=-Wno-ignored-optimization-argument", tree.root / name],
                             cwd=tree.root, capture_output=True, text=True, check=False)
        if ran.returncode == 0 and " warning: " not in ran.stdout:
            stamp.touch()
            return name, "looked at", ""
        return name, "looked at", ran.stdout or ran.stderr

    with concurrent.futures.ThreadPoolExecutor(max_workers=jobs) as pool:
        for name, outcome, output in pool.map(check, newest_first(tree, sources)):
            count[outcome] += 1
            if not output:
                continue
            seen = False
            for match in re.finditer(r"^(\S+?):(\d+):\d+: (?:error|warning): (.*)$", output, re.MULTILINE):
                seen = True
                yield os.path.relpath(tree.root / match.group(1), tree.root), int(match.group(2)), match.group(3)
            if not seen:
                yield name, 1, output.strip()[:400]
    print(f"{len(sources)} sources: " + ", ".join(f"{number} {what}" for what, number in count.items()))
