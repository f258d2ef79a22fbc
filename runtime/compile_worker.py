"""The process that compiles: jobs come in on stdin, compiled kernels go out on stdout, pickled.

It never imports torch, which takes longer than the compilation. Triton only looks at
`torch.Tensor`, for which a stand-in will do; of an emitted module it loads what kernels can see.
"""

from __future__ import annotations

import ast
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from attnc.errors import AttncError
from attnc.runtime.compile_pool import Failure, Job
from attnc.runtime.machine_code import CompiledKernel, compile_kernel, specialise


def without_torch(tree: ast.Module) -> ast.Module:
    """The statements of a module that mention neither torch nor a name defined by its means.

    Kernels are among them: a `triton.jit` function can use nothing of torch.
    """
    gone = {"torch"}
    kept: list[ast.stmt] = []
    for statement in tree.body:
        if _mentioned(statement) & gone:
            gone |= _defined(statement)
        else:
            kept.append(statement)
    return ast.Module(kept, [])


def _mentioned(statement: ast.stmt) -> set[str]:
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    match statement:
        case ast.Import(aliases):
            return names | {a.name.split(".")[0] for a in aliases}
        case ast.ImportFrom(module=str(module)):
            return names | {module.split(".")[0]}
        case _:
            return names


def _defined(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.Import(aliases) | ast.ImportFrom(names=aliases):
            return {(a.asname or a.name).split(".")[0] for a in aliases}
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case _:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name))
            return {n.id for n in stored if isinstance(n.ctx, ast.Store)}


def load_kernels(path: Path) -> ModuleType:
    """Execute the part of a module file that kernels can see."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise AttncError("E811", f"cannot read module `{path}`: {e.strerror}") from None
    module = ModuleType(f"attnc_kernels_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(without_torch(tree), str(path), "exec", dont_inherit=True), module.__dict__)
    return module


def compile_job(job: Job, loaded: dict[str, ModuleType]) -> CompiledKernel:
    """Compile one kernel of a module file; modules are kept for the jobs that follow."""
    if job.path not in loaded:
        loaded[job.path] = load_kernels(Path(job.path))
    fn: Any = getattr(loaded[job.path], job.kernel, None)
    if fn is None:
        raise AttncError("E811", f"module `{job.path}` has no kernel `{job.kernel}`")
    special = specialise(fn, job.arguments, job.target)
    return compile_kernel(
        fn,
        signature=special.signature,
        constexprs=special.constexprs,
        attrs=special.attrs,
        target=job.target,
        num_warps=job.num_warps,
        num_stages=job.num_stages,
        maxnreg=job.maxnreg,
    )


def _skip_library_hash() -> None:
    """Key Triton's cache, a throwaway here, without hashing its library of 400 MB (0.4 s)."""
    import triton

    triton.runtime.cache.triton_key = lambda: triton.__version__


def main() -> None:
    """Serve jobs until stdin ends."""
    # Triton prints a whole listing on stdout when ptxas fails: keep the pipe to ourselves.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stand_in = ModuleType("torch")
    stand_in.__dict__["Tensor"] = type("Tensor", (), {})
    sys.modules["torch"] = stand_in
    _skip_library_hash()
    loaded: dict[str, ModuleType] = {}
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: CompiledKernel | Failure
        try:
            answer = compile_job(job, loaded)
        except AttncError as e:
            answer = Failure(e.code, e.message, e.hint)
        pickle.dump(answer, replies)
        replies.flush()


if __name__ == "__main__":
    main()
