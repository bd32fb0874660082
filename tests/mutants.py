"""Mutants of a solution: the same source with one small slip each.

    python tests/mutants.py 2.1 2.2     # which slips the checks let pass

A mutant that passes is right in another way (`equal` in tests/proofs/NN.toml says why),
or its check looks too little.
"""

import ast
import copy
import sys
from collections.abc import Iterator

from qwen_course import checks

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
BODIES = ("body", "orelse", "finalbody")
SECONDS = 2.0  # a mutant that loops is stopped


def _slips(node: ast.AST) -> Iterator[tuple[str, str, object]]:
    """Field of a node that another value makes wrong: what was done, field, value."""
    match node:
        case ast.Compare(ops=[first, *rest]) if type(first) in OPERATORS:
            other = OPERATORS[type(first)]()
            yield (
                f"{type(first).__name__} -> {type(other).__name__}",
                "ops",
                [other, *rest],
            )
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            if type(op) in OPERATORS:
                other = OPERATORS[type(op)]()
                yield f"{type(op).__name__} -> {type(other).__name__}", "op", other
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield f"{value} -> {value + 1}", "value", value + 1
        case ast.Constant(value=str(value)):
            yield f"{value!r} -> {value + 'x'!r}", "value", value + "x"
        case ast.Name(id=name) if name in CALLS:
            yield f"{name} -> {CALLS[name]}", "id", CALLS[name]
        case ast.Slice(lower=ast.expr()):
            yield "slice without its start", "lower", None
        case ast.Slice(upper=ast.expr()):
            yield "slice without its end", "upper", None
        case ast.IfExp(test=test) | ast.If(test=test):
            yield "condition turned round", "test", ast.UnaryOp(ast.Not(), test)
    for field in BODIES:
        body = getattr(node, field, None)
        if not isinstance(body, list):
            continue
        for place, line in enumerate(body):
            if isinstance(line, ast.stmt) and not _needed(line):
                rest = [*body[:place], *body[place + 1 :]]
                left = rest or [ast.Pass()] if field == "body" else rest
                yield f"without: {ast.unparse(line).splitlines()[0]}", field, left


def _needed(line: ast.stmt) -> bool:
    """Without it nothing is defined, or nothing is lost."""
    text = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    defined = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass
    return text or isinstance(line, defined)


def mutants(source: str) -> dict[str, str]:
    """Sources with one slip each, by line and what was done."""
    tree, found = ast.parse(source), {}
    texts = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        and isinstance(node.body[0], ast.Expr)
    }
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in texts:
            continue
        for done, field, value in _slips(node):
            changed = copy.deepcopy(tree)
            target = [*ast.walk(changed)][place]
            setattr(target, field, copy.deepcopy(value))
            line = getattr(node, "lineno", 0)
            name = f"{line}:{getattr(node, 'col_offset', 0)} {done}"
            found[name] = ast.unparse(ast.fix_missing_locations(changed))
    return found


def passed(exercise: checks.Exercise) -> dict[str, str]:
    """The mutants of its solution that its check calls correct."""
    return {
        name: source
        for name, source in mutants(exercise.solution).items()
        if checks.check_source(exercise.id, source, SECONDS).status == "correct"
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        task = checks._find(name)
        left = passed(task)
        print(f"{name}: {len(left)} of {len(mutants(task.solution))} mutants pass")
        for slip in left:
            print(f"  {slip}")
