"""Targets: complete, consistent, sourced; mistakes in a user's file are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.errors import AttncError
from attnc.runtime.targets import load_target, target_names, target_of_device

H200 = Path(__file__).parents[2] / "runtime" / "target_files" / "h200.toml"


def test_the_built_in_targets() -> None:
    assert target_names() == ("a100", "b200", "h100", "h200", "mi300x")


@pytest.mark.parametrize(
    ("alias", "name", "triton_arch"),
    [("sm_80", "a100", 80), ("sm_90", "h100", 90), ("SM_100", "b200", 100),
     ("gfx942", "mi300x", "gfx942"), ("H200", "h200", 90)],
)  # fmt: skip
def test_an_alias_is_a_target(alias: str, name: str, triton_arch: int | str) -> None:
    target = load_target(alias)
    assert (target.name, target.triton_arch) == (name, triton_arch)


@pytest.mark.parametrize("name", target_names())
def test_the_tensor_peak_is_sms_times_clock_times_rate(name: str) -> None:
    t = load_target(name)
    assert t.sms * t.clock_mhz * t.tensor_flop_per_clk / 1e6 == pytest.approx(
        t.tensor_tflops, rel=0.005
    )
    assert t.shared_bytes_per_block <= t.shared_bytes_per_sm
    assert (t.tensor_tflops_sustained or 0) < t.tensor_tflops
    assert (t.memory_sustained or 0) < t.memory_bytes_per_second


@pytest.mark.parametrize("name", target_names())
def test_limits_of_an_sm_fit_together(name: str) -> None:
    t = load_target(name)
    assert t.shared_bytes_per_block + t.shared_reserved_per_block == t.shared_bytes_per_sm
    assert t.registers_per_sm % t.register_unit == 0
    assert t.warps_per_sm * t.register_unit <= t.registers_per_sm
    assert t.blocks_per_sm <= t.warps_per_sm
    assert t.special_per_clk <= t.alu_per_clk <= t.fma_per_clk
    assert t.special_per_clk <= t.issue_per_clk * t.warp_size


@pytest.mark.parametrize("name", target_names())
def test_nearer_memory_is_smaller_and_faster(name: str) -> None:
    t = load_target(name)
    per_clk = t.memory_bytes_per_second / (t.clock_mhz * 1e6)
    assert per_clk < t.l2_bytes_per_clk < t.sms * t.shared_bytes_per_clk
    assert t.sms * t.shared_bytes_per_sm < t.l2_bytes < t.memory_bytes
    assert 200 < t.latency_clk < 500


def test_a_reserved_amount_may_be_nothing() -> None:
    assert load_target("mi300x").shared_reserved_per_block == 0


@pytest.mark.parametrize("name", target_names())
def test_every_figure_names_its_source(name: str) -> None:
    target = load_target(name)
    assert {"sms", "clock_mhz", "memory_bytes_per_second"} <= target.sources.keys()
    assert all(target.sources.values())
    assert hash(target) == hash(load_target(name))


@pytest.mark.parametrize(
    ("device", "sms", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 132, "h100"),
        ("NVIDIA H100 PCIe", 114, None),
        ("NVIDIA H200", 132, "h200"),
        ("NVIDIA A100-SXM4-80GB", 108, "a100"),
        ("NVIDIA B200", 148, "b200"),
        ("AMD Instinct MI300X VF", 304, "mi300x"),
        ("AMD Instinct MI300A", 228, None),
        ("NVIDIA GeForce RTX 4090", 128, None),
    ],
)
def test_a_device_is_recognised(device: str, sms: int, name: str | None) -> None:
    found = target_of_device(device, sms)
    assert (found and found.name) == name


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(H200.read_text().replace('name = "h200"', 'name = "mine"'))
    assert load_target(path).name == "mine"
    assert load_target(str(path)).memory_bytes_per_second == 4.8e12


def test_an_unknown_target_names_the_nearest_and_the_list() -> None:
    with pytest.raises(AttncError) as e:
        load_target("h20")
    assert e.value.code == "E801"
    assert "`mi300x`" in e.value.message
    assert "`h200`" in e.value.hint or "`h100`" in e.value.hint


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("[figures]", "[figures"), "not TOML"),
        (replaced("arch = ", "chip = "), "`arch` is missing"),
        (replaced('"sm_90"', '"sm_x; import os"'), "not like `sm_90`"),
        (replaced("warp_size = 32", "warp_size = 31"), "neither 32 nor 64"),
        (replaced("l2_bytes ", "l2_byte "), "`l2_bytes` is missing"),
        (replaced("l2_bytes ", "l3_bytes = 1\nl2_bytes "), "`l3_bytes` is unknown"),
        (replaced('"MHz"', '"GHz"'), "in `GHz`, not in `MHz`"),
        (replaced("value = 132", "value = -1"), "not a positive number"),
        (replaced("value = 132", "value = nan"), "not a positive number"),
        (replaced("value = 132", "value = 0"), "`sms` is zero"),
        (replaced("value = 1024", "value = -1024"), "not a positive number"),
        (replaced("special_per_clk ", "special "), "`special_per_clk` is missing"),
        (replaced("value = 132", "value = 1" + "0" * 400), "not a positive number"),
        (replaced("value = 132", "value = 1" + "0" * 9000), "not TOML"),
        (replaced("value = 132", "value = true"), "not a positive number"),
        (replaced('source = "NVIDIA H200 datasheet"', 'source = ""'), "names no source"),
        (lambda _: "x = " + "[" * 5000, "not TOML"),
        (lambda _: "", "`name` is missing"),
        (lambda text: text.split("[figures]")[0] + "figures = 3", "not a table"),
    ],
)
def test_a_mistake_in_a_file_is_named(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(change(H200.read_text()))
    with pytest.raises(AttncError, match=message) as e:
        load_target(path)
    assert e.value.code == "E802"


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(AttncError, match="cannot read") as e:
        load_target("/nowhere/gpu.toml")
    assert e.value.code == "E801"
