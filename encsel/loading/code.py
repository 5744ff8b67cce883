"""The hash of Python code on disk: part of the key of vectors that code of others makes."""

import hashlib
import importlib.util
from pathlib import Path

CODE_SUFFIXES = frozenset({".py", ".so", ".pyd", ".dylib", ".dll"})


def code_hash(module: str) -> str:
    """SHA-256 of the files of the outermost package that a module is in, or of the module if it is in none."""
    parts = module.split(".")
    code = hashlib.sha256()
    for depth in range(1, len(parts) + 1):
        spec = importlib.util.find_spec(".".join(parts[:depth]))
        if spec is None or spec.origin is None:  # a namespace, which may hold packages of others
            continue
        root = Path(spec.origin)
        files = [p for p in root.parent.rglob("*") if p.suffix in CODE_SUFFIXES] if root.stem == "__init__" else [root]
        for path in sorted(files):
            code.update(path.relative_to(root.parent).as_posix().encode() + b"\0")
            code.update(hashlib.sha256(path.read_bytes()).digest())
        break
    return code.hexdigest()
