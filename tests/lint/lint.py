"""One lint rule over the project: prints every finding as 'file:line: rule: text', exits 1 when there is one.

Exit 77 = nothing to look at (ctest records a skip). Standard library only.
"""
import argparse
import os
import pathlib
import sys

import source_rules
import text_rules
import tool_rules
from tree import Tree

RULES = {
    "includes": source_rules.includes,
    "length": source_rules.length,
    "headers": source_rules.headers,
    "macros": source_rules.macros,
    "silence": source_rules.silence,
    "portable": text_rules.portable,
    "scripts": text_rules.scripts,
    "formatting": tool_rules.formatting,
    "manual": tool_rules.manual,
    "tidy": tool_rules.tidy,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rule", choices=sorted(RULES))
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--build-dir", type=pathlib.Path, help="folder with compile_commands.json (tidy)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--budget", type=float, default=float(os.environ.get("DEEPSEEK_TIDY_SECONDS", 0)),
                        help="seconds after which tidy begins no further file; 0: no limit")
    args = parser.parse_args()
    tree = Tree(args.root)
    extra = [args.build_dir or tree.root / "build" / "release", args.jobs, args.budget] if args.rule == "tidy" else []
    findings = set()  # a header's finding comes once for every source that includes it
    try:
        for finding in RULES[args.rule](tree, *extra):
            if finding not in findings:
                findings.add(finding)
                name, line, text = finding
                print(f"{name}:{line}: {args.rule}: {text}", flush=True)
    except LookupError as nothing:
        print(f"skipped: {nothing}")
        return 77
    except tool_rules.MissingProgram as error:
        print(f"lint {args.rule}: {error}", file=sys.stderr)
        return 2
    print(f"{args.rule}: {len(findings)} findings in {len(tree.files)} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
