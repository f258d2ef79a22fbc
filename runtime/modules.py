"""Import emitted modules, to be compiled by Triton or run by its interpreter."""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
from pathlib import Path
from types import ModuleType

from attnc.errors import AttncError
from attnc.runtime.interpreter import interpreted


def load_module(path: str | Path, *, interpret: bool = False) -> ModuleType:
    """Import an emitted module from its file, under a name of its own.

    `interpret`: its kernels run in Triton's interpreter, on CPU tensors too; else they are
    compiled for the GPU at their first launch (unless TRITON_INTERPRET=1 was set before triton was
    imported: then all kernels of the process are interpreted). The same content is loaded once.
    Raises E814 for a file that cannot be read, E812 where triton is not installed.
    """
    path = Path(path).absolute()
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise AttncError("E814", f"cannot read module `{path}`: {e}") from None
    return _load(source, str(path), path.stem, interpret)


def load_source(source: str, name: str, *, interpret: bool = False) -> ModuleType:
    """`load_module` for a module that is not in a file; `name` is shown in tracebacks."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    filename = f"<attnc {name} {digest}>"
    # Triton reads the source of a kernel; an entry without a time stamp is never dropped.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return _load(source, filename, name, interpret)


def _load(source: str, filename: str, stem: str, interpret: bool) -> ModuleType:
    digest = hashlib.sha256(f"{filename}\n{source}".encode()).hexdigest()[:16]
    # An identifier, so that a module may register operators of torch under its own name.
    name = re.sub(r"\W", "_", f"attnc_{stem}_{digest}{'_interpreted' if interpret else ''}")
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = filename
    # inspect and pickle find a function's module by its name
    sys.modules[name] = module
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
        if interpret:
            _make_interpretable(module)
    except BaseException as e:
        del sys.modules[name]
        if isinstance(e, ModuleNotFoundError) and e.name == "triton":
            raise AttncError(
                "E812", "Triton is not installed, so kernels cannot run", hint="pip install triton"
            ) from None
        raise
    return module


def _make_interpretable(module: ModuleType) -> None:
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for name, value in list(vars(module).items()):
        if isinstance(value, (JITFunction, InterpretedFunction)):
            setattr(module, name, interpreted(value))
    if hasattr(module, "_describable"):
        # The interpreter loads by tensor descriptors, as GPUs from Hopper on do.
        vars(module)["_capability"] = lambda: 90
