"""Rules about every text file: nothing that ties the project to one machine or registry; scripts parse."""
import re
import subprocess

from tree import numbered

# Put together here so that this file passes its own rule.
HOSTS = [r"pypi\." + "org", r"python" + r"hosted\.org", r"deb\.debian\." + "org", r"registry\.npm" + "js",
         r"crates\." + "io", r"proxy\.golang\." + "org", r"conda\." + "anaconda"]
MACHINE = re.compile(r"(?<![\w.\-$}~/*])/(?:" + "|".join(["ro" + "ot", "wo" + "rk", r"ho" + r"me/\w+", "Us" + "ers"]) + ")/")
HOST = re.compile("|".join(HOSTS))


def portable(tree):
    """No absolute path of somebody's machine, no registry host."""
    for name in tree.files:
        with open(tree.root / name, "rb") as file:
            if b"\0" in file.read(4096):
                continue
        for number, line in numbered(tree.read(name)):
            path, host = MACHINE.search(line), HOST.search(line)
            if path:
                yield name, number, f"absolute path of a machine: '{path.group()}'"
            if host:
                yield name, number, f"names a registry host: '{host.group()}'"


def scripts(tree):
    """Shell scripts pass 'bash -n' and are executable; Python files compile."""
    for name in tree.files:
        shell = name.endswith(".sh") or tree.is_script(name, "bash", "/sh")
        if shell:
            checked = subprocess.run(["bash", "-n", tree.root / name], capture_output=True, text=True, check=False)
            if checked.returncode != 0:
                yield name, 1, checked.stderr.strip()
            if not (tree.root / name).stat().st_mode & 0o100:
                yield name, 1, "not executable"
        elif name.endswith(".py") or tree.is_script(name, "python"):
            try:
                compile(tree.read(name), name, "exec")
            except SyntaxError as error:
                yield name, error.lineno or 1, f"does not compile: {error.msg}"
