"""How many programs an SM holds, against NVIDIA's occupancy calculator."""

import pytest

from attnc.errors import AttncError
from attnc.runtime.cost.occupancy import programs_per_sm
from attnc.runtime.machine_code import Resources
from attnc.runtime.targets import load_target


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "programs"),
    [
        (204, 256, 98304, 1),  # 208 x 256 of 65536 registers
        (128, 256, 65536, 2),
        (128, 128, 98304, 2),  # two blocks of 97 KB in 228 KB
        (32, 1024, 0, 2),  # 64 warps
        (16, 32, 0, 32),  # blocks
        (255, 256, 0, 1),
    ],
)
def test_an_h100_holds(registers: int, threads: int, shared: int, programs: int) -> None:
    kernel = Resources(registers, 0, shared, 0, threads)
    assert programs_per_sm(kernel, load_target("h100")) == programs


def test_what_lacks_is_named_with_its_size() -> None:
    kernel = Resources(128, 0, 300_000, 0, 128)
    with pytest.raises(AttncError, match=r"301024 bytes of shared memory of 232448") as e:
        programs_per_sm(kernel, load_target("h100"))
    assert e.value.code == "E852"


def test_tensor_memory_is_for_one_block_where_it_takes_more_than_half() -> None:
    kernel = Resources(64, 0, 1024, 200_000, 128)
    assert programs_per_sm(kernel, load_target("b200")) == 1
    with pytest.raises(AttncError, match="tensor memory"):
        programs_per_sm(kernel, load_target("h100"))
