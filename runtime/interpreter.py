"""Run jitted kernels in Triton's interpreter, whatever was imported first, and get bf16 right.

Facts about Triton 3.6 to 3.9 that shape this module:
- `triton.jit` decides when it decorates: TRITON_INTERPRET=1 (or `knobs.runtime.interpret`) makes an
  InterpretedFunction, else a JITFunction. Nothing reads the variable later.
- `tl.sum`, `tl.sigmoid` and their like are decorated when triton is first imported. If that
  happened without the variable, they are JITFunctions, which the interpreter cannot call.
- While a kernel is interpreted, Triton replaces the builtins of `triton.language`. It puts them
  back after the launch, but not those that a called function replaced: `tl.core`, which `tl.sum`
  reaches, would stay replaced and break compilation from then on.
- A bf16 tensor is held as its bits, uint16. `tl.dot` multiplies those bits as integers, so does all
  arithmetic, and rounding from fp32 cuts the bits off. (A reduction of bf16 still compares bits: a
  kernel widens first, as it should on a GPU.)
- 3.6 turns loop bounds into ints in a way that numpy 2.4 refuses.

So a kernel is made interpretable after its import, and a launch swaps in the library and the
arithmetic that it needs, then puts everything back. Compiled and interpreted kernels live in one
process; no environment variable and no order of imports matters.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What a launch replaces belongs to the whole process: one launch at a time.
_LAUNCH = threading.RLock()


def interpreter_available() -> bool:
    """Whether kernels can be interpreted here: that takes triton, and no GPU."""
    return importlib.util.find_spec("triton") is not None


def interpreted(fn: Any) -> Any:
    """The kernel that interprets what `fn`, a function decorated with `triton.jit`, says.

    Launched like `fn`: `interpreted(fn)[grid](...)`, on tensors of any device.
    """
    from triton.runtime.interpreter import InterpretedFunction

    kernel = InterpretedFunction(fn.fn)
    launch: Callable[..., Any] = kernel.run

    def run(*args: Any, **kwargs: Any) -> Any:
        # A GPU does not warn of exp2(inf - inf) either.
        with _LAUNCH, _interpreting(), np.errstate(all="ignore"):
            return launch(*args, **kwargs)

    kernel.run = run
    return kernel


@contextmanager
def _interpreting() -> Iterator[None]:
    before = [(owner, dict(vars(owner))) for owner in _owners()]
    try:
        for owner, name, value in (*_library(), *_repairs(), *_savings()):
            setattr(owner, name, value)
        yield
    finally:
        for owner, attributes in before:
            _restore(owner, attributes)


def _restore(owner: Any, attributes: dict[str, Any]) -> None:
    for name, value in list(vars(owner).items()):
        if name not in attributes:
            # To modules the interpreter adds, once, globals that its rewritten functions need.
            if not isinstance(owner, ModuleType):
                delattr(owner, name)
        elif value is not attributes[name]:
            setattr(owner, name, attributes[name])


@cache
def _owners() -> tuple[Any, ...]:
    """Whatever Triton, or we, replace attributes of."""
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import mangle_type

    # The first argument ever passed makes Triton import gluon, which wants the library as it is.
    mangle_type(0)
    modules = [m for name, m in sys.modules.items() if name.startswith("triton.language")]
    classes = (tl.core.tensor, tl.core.dtype, tl.core.tensor_descriptor_base)
    return (*modules, *classes, interpreter, interpreter.interpreter_builder)


@cache
def _library() -> tuple[tuple[Any, str, Any], ...]:
    """The jitted functions of `triton.language` and its `tensor`: owner, name, interpreted form."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    made: dict[int, Any] = {}

    def form(owner: Any, fn: Any) -> Any:
        # One object per function: Triton compares them to recognise sums and maxima.
        if id(fn) not in made:
            made[id(fn)] = InterpretedFunction(fn.fn)
        return made[id(fn)] if isinstance(owner, ModuleType) else _as_method(made[id(fn)])

    return tuple(
        (owner, name, form(owner, value))
        for owner in _owners()
        for name, value in vars(owner).items()
        if isinstance(value, JITFunction)
    )


def _as_method(kernel: Any) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return kernel(*args, **kwargs)

    return method


def widen_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values that bf16 bits stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """bf16 bits of the nearest values, ties to even, as a GPU rounds."""
    bits = np.ascontiguousarray(values).view(np.uint32).reshape(values.shape)
    upper = bits >> np.uint32(16)
    nearest = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    # Adding to a NaN's bits may make it infinite: keep it and its quiet bit.
    return np.where(np.isnan(values), upper | np.uint32(0x40), nearest).astype(np.uint16)


@cache
def _repairs() -> tuple[tuple[Any, str, Any], ...]:
    """What the interpreter computes wrongly: owner, name, the right function."""
    import triton.language as tl
    from triton.runtime import interpreter as triton_interpreter

    builder = triton_interpreter.interpreter_builder
    handle = triton_interpreter.TensorHandle
    plain_binary, plain_dot = builder.binary_op, builder.create_dot
    plain_patch = triton_interpreter._patch_lang_tensor

    def value(operand: Any) -> Any:
        return widen_bf16(operand.data) if operand.dtype.scalar == tl.bfloat16 else operand.data

    def cast(operand: Any, kind: Any) -> Any:
        if kind.scalar == tl.bfloat16:
            return handle(round_to_bf16(value(operand).astype(np.float32)), kind.scalar)
        return handle(
            value(operand).astype(triton_interpreter._get_np_dtype(kind.scalar)), kind.scalar
        )

    def binary(left: Any, right: Any, op: Callable[[Any, Any], Any]) -> Any:
        if left.dtype.scalar != tl.bfloat16:
            return plain_binary(left, right, op)
        result = op(value(left), value(right))
        return handle(result if result.dtype == bool else round_to_bf16(result), tl.bfloat16)

    def dot(a: Any, b: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            a, b = handle(value(a), tl.float32), handle(value(b), tl.float32)
        return plain_dot(a, b, *rest)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        plain_patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    return (
        (builder, "cast_impl", cast),
        (builder, "binary_op", binary),
        (builder, "create_dot", dot),
        (triton_interpreter, "_patch_lang_tensor", patch_tensor),
    )


def _savings() -> tuple[tuple[Any, str, Any], ...]:
    """A third of the interpreter's time, spent for nothing: owner, name, what does without.

    It replaces the builtins anew at each call of a function, and computes int products twice for
    an overflow check whose outcome only its debug mode looks at.
    """
    from triton.runtime import interpreter as triton_interpreter

    builder = triton_interpreter.interpreter_builder
    plain_patch = triton_interpreter._patch_lang
    patched: set[int] = set()

    def patch_once(fn: Any) -> Any:
        module = id(fn.__globals__)
        if module in patched:
            return triton_interpreter._LangPatchScope()
        patched.add(module)
        return plain_patch(fn)

    options = builder.options
    if not options.debug:
        options = replace(options, sanitize_overflow=False)
    return ((triton_interpreter, "_patch_lang", patch_once), (builder, "options", options))
