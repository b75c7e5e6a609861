"""How much a sampler is: python benchmarks/sampler_sizes.py

For every file of diffusion_jax/samplers that holds a sampler: its samplers, its lines, and how
many of them are code (neither blank nor comment nor docstring).
"""

import ast
import inspect
from pathlib import Path

from diffusion_jax import samplers


def code_lines(text: str) -> int:
    """Lines that hold code: from the syntax tree without its docstrings."""
    tree = ast.parse(text)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in docstrings
        for number, line in lines
    )


def main() -> None:
    """Prints a table, the shortest file first."""
    files: dict[Path, list[str]] = {}
    for name, value in vars(samplers).items():
        if inspect.isclass(value) and "step" in vars(value):
            files.setdefault(Path(inspect.getfile(value)), []).append(name)
    rows = [(path.name, path.read_text(), names) for path, names in files.items()]
    print("| file | samplers | lines | of code |\n|---|---|---|---|")
    for name, text, names in sorted(rows, key=lambda row: len(row[1].splitlines())):
        listed = ", ".join(f"`{n}`" for n in names)
        print(f"| `{name}` | {listed} | {len(text.splitlines())} | {code_lines(text)} |")


if __name__ == "__main__":
    main()
