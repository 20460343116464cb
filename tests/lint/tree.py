"""The project's files, and C++ text with comments and literals blanked out."""
import pathlib
import re
import subprocess

CPP = {".h", ".cpp", ".cu", ".cuh"}
HEADER = {".h", ".cuh"}
NOT_OURS = {".git", "build", ".venv", "peers", "__pycache__"}

# Comments, raw strings, strings and characters; an apostrophe between digits is a separator, no literal.
LITERAL = re.compile(
    r'//(?:\\\n|[^\n])*|/\*.*?\*/'
    r'|R"(?P<raw>[^()\\\s]{0,16})\(.*?\)(?P=raw)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'",
    re.DOTALL)


class Tree:
    """All files under a root: those of git (tracked, or new and not ignored), else what the disk holds."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.files = sorted(self._of_git() or self._of_disk())

    def _of_git(self):
        if not (self.root / ".git").exists():
            return []
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={self.root}", "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"],
            cwd=self.root, capture_output=True, check=False)
        names = [name for name in listed.stdout.decode().split("\0") if name]
        return [name for name in names if (self.root / name).is_file()]

    def _of_disk(self):
        names = []
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root)
            if path.is_file() and not NOT_OURS & set(name.parts):
                names.append(name.as_posix())
        return names

    def cpp(self, *tops):
        """C++ files below the folders named, or all."""
        return [name for name in self.files
                if pathlib.PurePosixPath(name).suffix in CPP and (not tops or name.startswith(tops))]

    def read(self, name):
        return (self.root / name).read_text(encoding="utf-8", errors="replace")

    def is_script(self, name, *interpreters):
        with open(self.root / name, "rb") as file:
            first = file.readline(200).decode("latin-1")
        return first.startswith("#!") and any(word in first for word in interpreters)


def blank(text):
    """The text with comments and literals as spaces; line numbers and directives stay as they were."""
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group())
    lines = []
    # An include's path is a string too: keep those lines out of the blanking.
    for number, line in enumerate(text.split("\n")):
        lines.append(line if not re.match(r"\s*#\s*include\b", line) else f"\x00{number}")
    kept = text.split("\n")
    blanked = LITERAL.sub(spaces, "\n".join(lines)).split("\n")
    return "\n".join(kept[number] if line.startswith("\x00") else line
                     for number, line in enumerate(blanked))


def numbered(text):
    return enumerate(text.split("\n"), start=1)
