"""Parameter names of the Transformer Engine classes that Megatron-Core's wrappers call, from its sources.

Made again by ``pip download --no-deps transformer-engine==VERSION`` and
``python -m tests.policy.te_signatures WHEEL > tests/policy/te_signatures.json``; nothing is imported of it.
A name with ``=`` has a default; ``*`` begins keyword-only ones; ``**`` takes any others.
"""

import ast
import json
import sys
import zipfile
from inspect import Parameter, Signature
from pathlib import Path

TABLE = Path(__file__).with_suffix(".json")
SOURCES = {  # what the table calls it: (file under transformer_engine/pytorch, class or none, function)
    f"{name}.{method}": (file, name, method)
    for name, file in {
        "Linear": "module/linear.py",
        "DotProductAttention": "attention/dot_product_attention/dot_product_attention.py",
    }.items()
    for method in ("__init__", "forward")
} | {
    "RMSNorm.__init__": ("module/rmsnorm.py", "RMSNorm", "__init__"),
    "ops.RMSNorm.__init__": ("ops/basic/rmsnorm.py", "RMSNorm", "__init__"),  # takes RMSNorm's ** names
    "apply_rotary_pos_emb": ("attention/rope.py", None, "apply_rotary_pos_emb"),
}


def names_of(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    names = [a.arg + "=" * (i >= required) for i, a in enumerate(positional) if a.arg != "self"]
    if arguments.kwonlyargs:
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        names += ["*", *(a.arg + "=" * (default is not None) for a, default in pairs)]
    return [*names, "**"] if arguments.kwarg else names


def read_wheel(wheel: Path) -> dict:
    signatures = {}
    with zipfile.ZipFile(wheel) as files:
        for called, (file, owner, function) in SOURCES.items():
            body = ast.parse(files.read(f"transformer_engine/pytorch/{file}")).body
            if owner:
                body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == owner).body
            found = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == function]
            signatures[called] = names_of(found[-1])
    return {"version": wheel.name.split("-")[1], "signatures": signatures}


def signature(called: str) -> Signature:
    """Of the table, as Python binds it."""
    kind, parameters = Parameter.POSITIONAL_OR_KEYWORD, []
    for name in json.loads(TABLE.read_text())["signatures"][called]:
        if name == "*":
            kind = Parameter.KEYWORD_ONLY
        elif name == "**":
            parameters.append(Parameter("others", Parameter.VAR_KEYWORD))
        else:
            default = None if name.endswith("=") else Parameter.empty
            parameters.append(Parameter(name.rstrip("="), kind, default=default))
    return Signature(parameters)


if __name__ == "__main__":
    print(json.dumps(read_wheel(Path(sys.argv[1])), indent=1))
