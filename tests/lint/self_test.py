"""Every lint rule finds what it is there for, and leaves good code alone: a tree with one fault a rule."""
import pathlib
import re
import sys
import tempfile

import source_rules
import text_rules
import tool_rules
from tree import Tree, blank

# rule -> [(file, text, expected finding lines)]; no expected line = good code.
CASES = {
    source_rules.includes: [
        ("kernels/a.h", '#pragma once\n#include "libcore/base/b.h"\n', [2]),
        ("kernels/gemm.h", '#pragma once\n#include "kernels/view.h"\n', []),
        ("kernels/view.h", "#pragma once\n#include <vector>\n", []),
        ("kernels/cpu/isa_ops.h", "#pragma once\n", []),
        ("libcore/base/b.h", '#pragma once\n#include "kernels/view.h"\n', [2]),
        ("libcore/base/up.cpp", '#include "libcore/io/c.h"\n', [1]),
        ("libcore/io/c.h", '#pragma once\n#include "kernels/view.h"\n#include "kernels/gemm.h"\n', [3]),
        ("libcore/nn/d.cpp", '#include "kernels/gemm.h"\n#include "libcore/io/c.h"\n'
                             '#include "kernels/cpu/isa_ops.h"\n#include "c.h"\n', [3, 4]),
        ("libcore/train/e.h", '#pragma once\n#include "kernels/gemm.h"\n#include "tools/check/f.h"\n', [2, 3]),
        ("libcore/novel/n.h", '#include "libcore/base/b.h"\n', [1]),
        ("tools/check/f.h", '#pragma once\n#include "libcore/train/e.h"\n', []),
        ("tools/finetune/g.cpp", '#include "tools/check/f.h"\n#include "kernels/gemm.h"\n', [1, 2]),
        ("tests/core/base/h.cpp", '#include "libcore/train/e.h"\n#include "kernels/gemm.h"\n', []),
        ("libcore/base/t.cpp", '#include "tests/core/base/h.cpp"\n', [1]),
    ],
    source_rules.length: [
        ("libcore/base/long.cpp", "int x;\n" * 801, [801]),
        ("libcore/base/middle.cpp", "int x;\n" * 800, []),
        ("docs/long.md", "text\n" * 2000, []),
    ],
    source_rules.headers: [
        ("libcore/base/a.h", "#pragma once\n#ifdef X\n#endif\n", [2, 3]),
        ("libcore/base/b.h", "#include <vector>\n", [1]),
        ("libcore/base/c.h", "// A comment may come first.\n#pragma once\n/*\n#if 0\n*/\n", []),
        ("libcore/base/d.cpp", "#if 1\n#endif\n", []),
    ],
    source_rules.macros: [
        ("libcore/base/a.cpp", "#define TWICE(x) x x\n", [1]),
        ("libcore/base/b.cpp", "#define DSK_CPU_OP(x) x\n", [1]),
        ("kernels/c.cpp", '#define DSK_CPU_OP(x) x\n#include "kernels/ops.def"\n#define OTHER(x) x\n', [3]),
        ("kernels/d.cpp", "#define VALUE 3\n", []),
    ],
    source_rules.silence: [
        ("libcore/base/a.cpp", "void f() {\n  printf(\"x\");\n  std::exit(1);\n  ::abort();\n}\n", [2, 3, 4]),
        ("libcore/nn/b.cpp", "#include <iostream>\nauto& s = std::cerr;\nint g() { return 1; }\n", [1, 2]),
        ("kernels/c.cpp", 'auto v = std::getenv("X");\nfmt::print("x");\nint d = fileno(stderr);\n', [1, 2, 3]),
        ("libcore/io/d.cpp", '// printf("no")\nauto s = "getenv(x)"; x.exit(1); y->abort(); other::system(2);\n'
                             'std::system_error e(2); int n = 1\'000\'000; snprintf(b, n, "%d", 1);\n', []),
        ("libcore/cli/e.cpp", 'auto v = std::getenv("X");\n', []),
        ("tools/check/main.cpp", 'printf("x");\n', []),
    ],
    text_rules.portable: [
        ("docs/a.md", "see /ro" + "ot/x/y\nsee build/ro" + "ot/x and $HO" + "ME/ro" + "ot/x\n", [1]),
        ("docs/b.md", "from pypi." + "org\n", [1]),
        ("docs/c.md", "Install with pip.\n/usr/share/doc\n", []),
    ],
    text_rules.scripts: [
        ("scripts/a.sh", "if true; then\n", [1, 1]),
        ("scripts/b.py", "x = (\n", [1]),
        ("scripts/c", "#!/usr/bin/env bash\necho\n", [1]),
        ("scripts/d.py", "x = 1\n", []),
    ],
    tool_rules.formatting: [
        (".clang-format", "BasedOnStyle: Google\nColumnLimit: 100\n", []),
        ("libcore/base/a.cpp", "int  main( ) { return 0; }\n", [1]),
        ("libcore/base/b.cpp", "int main() { return 0; }\n", []),
    ],
    tool_rules.manual: [
        ("man/a.1", ".Dd January 1, 2026\n.Dt A 1\n.Os\n.Sh NAME\n.Nm a\n.Nd b\n.Nosuch macro\n", [7]),
    ],
}


def tidy_cases(root):
    """clang-tidy finds an integer division in a float, and remembers only what passed."""
    (root / ".clang-tidy").write_text('Checks: "-*,bugprone-integer-division"\nWarningsAsErrors: "*"\n')
    (root / "libcore/base").mkdir(parents=True)
    (root / "libcore/base/good.cpp").write_text("int two() { return 2; }\n")
    (root / "libcore/base/bad.cpp").write_text("float half(int x) {\n  return x / 2;\n}\n")
    build = root / "build"
    build.mkdir()
    entries = [f'{{"directory": "{root}", "file": "libcore/base/{name}.cpp", '
               f'"command": "c++ -std=c++20 -c libcore/base/{name}.cpp"}}' for name in ("good", "bad")]
    (build / "compile_commands.json").write_text("[" + ",".join(entries) + "]")
    for _ in range(2):
        findings = [(name, line) for name, line, _ in tool_rules.tidy(Tree(root), build, 1, 0)]
        if findings != [("libcore/base/bad.cpp", 2)]:
            return [f"tidy: found {findings}"]
    return [] if len(list((build / "lint-tidy").iterdir())) == 1 else ["tidy: remembers what did not pass"]


def main():
    wrong = []
    for rule, files in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text, _ in files:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            found = sorted((name, line) for name, line, _ in rule(Tree(root)))
            expected = sorted((name, line) for name, _, lines in files for line in lines)
            if found != expected:
                wrong.append(f"{rule.__name__}: expected {expected}\n  found {found}")
    with tempfile.TemporaryDirectory() as folder:
        wrong += tidy_cases(pathlib.Path(folder).resolve())
    text = 'a("b // c"); // d\nR"x(\n"//)x"; \'"\' e /* f\n*/ g\n'
    if re.sub(r"\s+", " ", blank(text)) != "a( ); ; e g " or blank(text).count("\n") != text.count("\n"):
        wrong.append(f"blank: {blank(text)!r}")
    print("\n".join(wrong) if wrong else f"{len(CASES) + 1} rules find their faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
