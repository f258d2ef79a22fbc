"""How many programs of a kernel run on an SM at the same time."""

from __future__ import annotations

from attnc.errors import AttncError
from attnc.runtime.machine_code import Resources
from attnc.runtime.targets import Target


def programs_per_sm(resources: Resources, target: Target) -> int:
    """What registers, shared memory, warps and slots of an SM leave room for.

    Source: NVIDIA, CUDA C++ Programming Guide, hardware multithreading; registers are given out per
    warp in granules, and a block reserves some shared memory for itself. Raises AttncError E852
    where not even one program fits.
    """
    fits = {name: int(has // needs) for name, (needs, has) in _needs(resources, target).items()}
    if resources.registers > target.registers_per_thread:
        fits["registers per thread"] = 0
    limit = min(fits, key=lambda name: fits[name])
    if fits[limit] < 1:
        raise cannot_launch(resources, target)
    return fits[limit]


def cannot_launch(resources: Resources, target: Target, what: str = "the kernel") -> AttncError:
    """E852, with every resource of which there is too little."""
    needs = _needs(resources, target)
    short = [
        f"{needed:g} {name} of {has:g}" for name, (needed, has) in needs.items() if needed > has
    ]
    if resources.registers > target.registers_per_thread:
        most = target.registers_per_thread
        short.append(f"{resources.registers} registers per thread of {most:g}")
    return AttncError(
        "E852",
        f"{what} cannot be launched on `{target.name}`: it needs {', '.join(short)}",
        hint="smaller tiles, fewer load stages or other warps need less",
    )


def _needs(r: Resources, target: Target) -> dict[str, tuple[float, float]]:
    """(what a program needs, what an SM has) of each resource."""
    warps = -(-r.threads // target.warp_size)
    granule = target.register_unit
    registers = warps * -(-r.registers * target.warp_size // granule) * granule
    block = target.shared_bytes_per_block
    found = {
        "registers": (registers, target.registers_per_sm),
        "warps": (warps, target.warps_per_sm),
        "programs": (1, target.blocks_per_sm),
        "bytes of shared memory": (
            r.shared_bytes + target.shared_reserved_per_block,
            # A block may have less than an SM.
            target.shared_bytes_per_sm if r.shared_bytes <= block else block,
        ),
    }
    if r.tensor_bytes:
        found["bytes of tensor memory"] = (r.tensor_bytes, target.tensor_memory_per_sm or 0.0)
    return found
