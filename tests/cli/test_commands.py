"""The commands as a user types them: results on stdout, errors on stderr, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attnc.api import load
from attnc.codegen import emit
from attnc.library import names

BAD = "attention bad\ninput Q[b]\nO[b] = Qq[b] * 2\noutput O[b]\n"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The only thing on stdout, as JSON; nothing may be on stderr."""
        assert self.err == ""
        return json.loads(self.out)


@pytest.fixture
def attnc(in_folder: Callable[..., tuple[int, str, str]]) -> Callable[..., Ran]:
    """Run a command in this process, in an empty folder."""
    return lambda *args: Ran(*in_folder(*args))


def test_list_shows_every_spec_once(attnc: Callable[..., Ran]) -> None:
    specs = attnc("list", "--json").json()["specs"]
    assert sorted(s["name"] for s in specs) == sorted(names())
    assert all(s.keys() == {"name", "family", "summary", "citation"} for s in specs)
    lines = attnc("list").out.splitlines()
    rows = [line.split() for line in lines if line.startswith("  ") and line.strip()]
    assert sorted(row[0] for row in rows) == sorted(names())


def test_new_writes_a_spec_that_is_right_and_formatted(attnc: Callable[..., Ran]) -> None:
    assert attnc("new", "mine").status == 0
    assert attnc("check", "mine.attn").status == 0
    assert attnc("fmt", "--check", "mine.attn").status == 0
    assert attnc("explain", "mine.attn", "--json").json()["passes"]["n"]["derived"] == 1


def test_new_never_overwrites(attnc: Callable[..., Ran]) -> None:
    Path("mine.attn").write_text("precious")
    ran = attnc("new", "mine")
    assert (ran.status, ran.out) == (1, "")
    assert "E712" in ran.err
    assert Path("mine.attn").read_text() == "precious"
    assert os.listdir() == ["mine.attn"]


@pytest.mark.parametrize("name", ["3x", "a-b", "", "output", "no/such/folder/x"])
def test_new_refuses_what_it_cannot_write(attnc: Callable[..., Ran], name: str) -> None:
    assert attnc("new", name).status == 1
    assert os.listdir() == []


def test_fmt_writes_in_place_and_check_writes_nothing(attnc: Callable[..., Ran]) -> None:
    path = Path("a.attn")
    messy = "attention   a\ninput Q[b]\nO[b]=Q[b]*2\noutput O[b]\n"
    path.write_text(messy)
    path.chmod(0o640)
    assert attnc("fmt", "--check", "a.attn").status == 1
    assert path.read_text() == messy
    assert attnc("fmt", "a.attn").status == 0
    assert "O[b] = Q[b] * 2" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert attnc("fmt", "--check", "a.attn").status == 0
    assert os.listdir() == ["a.attn"]


def test_fmt_keeps_a_link_and_writes_what_it_points_to(attnc: Callable[..., Ran]) -> None:
    Path("real.attn").write_text("attention   a\ninput Q[b]\nO[b]=Q[b]\noutput O[b]\n")
    Path("link.attn").symlink_to("real.attn")
    assert attnc("fmt", "link.attn").status == 0
    assert Path("link.attn").is_symlink()
    assert "attention a\n" in Path("real.attn").read_text()


def test_check_prints_all_errors_with_their_place(attnc: Callable[..., Ran]) -> None:
    Path("bad.attn").write_text(BAD)
    ran = attnc("check", "bad.attn")
    assert (ran.status, ran.out) == (1, "")
    assert "bad.attn:3:8" in ran.err
    found = attnc("check", "bad.attn", "--json").json()
    assert found["ok"] is False
    assert {"code": "E102", "line": 3, "column": 8} in [
        {k: e[k] for k in ("code", "line", "column")} for e in found["errors"]
    ]
    assert all(e.keys() == {"code", "line", "column", "message", "hint"} for e in found["errors"])
    assert attnc("check", "causal", "--json").json() == {"ok": True, "errors": []}


@pytest.mark.parametrize("command", ["check", "explain", "compile", "verify"])
def test_an_unknown_name_suggests_the_nearest(attnc: Callable[..., Ran], command: str) -> None:
    ran = attnc(command, "sliding_windw")
    assert (ran.status, ran.out) == (1, "")
    assert "did you mean `sliding_window`?" in ran.err
    assert attnc(command, "sliding_windw", "--json").json()["ok"] is False


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("nonsense",),
        ("check",),
        ("explain", "causal", "--param", "window"),
        ("explain", "causal", "--param", "w=1", "--param", "w=2"),
        ("verify", "causal", "--shape", "m=3"),
        ("verify", "causal", "--dtype", "fp8"),
        ("list", "--jso"),
    ],
)
def test_wrong_usage_exits_with_2(attnc: Callable[..., Ran], args: tuple[str, ...]) -> None:
    ran = attnc(*args)
    assert (ran.status, ran.out) == (2, "")
    assert "usage" in ran.err


def test_explain_names_passes_laws_and_the_forcing_line(attnc: Callable[..., Ran]) -> None:
    causal = attnc("explain", "causal", "--json").json()
    assert (causal["passes"]["n"]["written"], causal["passes"]["n"]["derived"]) == (3, 1)
    assert {"iterate", "defer"} <= {c["law"] for c in causal["certificates"]}
    clipped = attnc("explain", "clipped_softmax", "--json").json()
    (forced,) = clipped["passes"]["n"]["forced_by"]
    assert clipped["passes"]["n"]["derived"] == 2
    assert (
        forced["text"]
        in Path(__file__).parents[2].joinpath("library/specs/clipped_softmax.attn").read_text()
    )
    (stage,) = clipped["stages"]
    assert stage.keys() == {"name", "family", "resident", "swept", "passes", "state", "tiles"}
    assert str(forced["line"]) in attnc("explain", "clipped_softmax").out


def test_explain_can_check_every_law_again(attnc: Callable[..., Ran]) -> None:
    found = attnc("explain", "softcap", "--check", "--json").json()
    assert found["ok"] is True
    assert found["error"] < 1e-12
    assert all(c["symbolic"] and c["numeric"] < 1e-12 for c in found["certificates"])
    assert "proved" in attnc("explain", "softcap", "--check").out


def test_a_law_that_does_not_hold_is_shown(
    attnc: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnc.ir.recheck.recheck", lambda plan, written: 0.25)
    ran = attnc("explain", "softcap", "--check", "--json")
    assert (ran.status, ran.json()["ok"]) == (1, False)


def test_explain_stages_shows_the_cascade_then_the_loops(attnc: Callable[..., Ran]) -> None:
    out = attnc("explain", "sliding_window", "--stages").out
    assert out.index("S[b, h, m, n]") < out.index("sweep sliding_window")


def test_a_wrong_parameter_is_the_users_error(attnc: Callable[..., Ran]) -> None:
    assert "E506" in attnc("explain", "sliding_window", "--param", "windw=3").err
    assert "E509" in attnc("explain", "sliding_window", "--param", "window=0").err


def test_a_bug_is_reported_without_a_traceback(
    attnc: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnc.library.entries", lambda: 1 / 0)
    ran = attnc("list")
    assert (ran.status, ran.out) == (1, "")
    assert "E999" in ran.err
    assert attnc("list", "--json").json()["errors"][0]["code"] == "E999"


HEAVY = ("torch", "triton", "sympy", "networkx", "numpy", "rich", "lark", "jinja2")


def test_help_imports_nothing_heavy() -> None:
    code = "import attnc, attnc.cli, sys; print(*sorted(set(sys.modules) & set(sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m attnc list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_compile_writes_module_and_report(attnc: Callable[..., Ran]) -> None:
    shape = "B=1,H=4,G=2,M=512,N=512,D=64,E=64"
    made = attnc("compile", "causal", "-o", "made", "--shape", shape, "--json").json()
    assert {"module", "report", "kernels", "seconds"} <= made.keys()
    (kernel,) = made["kernels"]
    assert {"name", "config", "registers", "spills", "shared_bytes", "target"} <= kernel.keys()
    assert kernel["spills"] == 0
    choice = kernel["choice"]
    assert choice["ms"] > 0 and choice["tier"] == "specs only"
    assert choice["candidates"] > choice["compiled"] > 0
    assert choice["why"].startswith(f"{choice['runner_up']} loses: ")
    assert json.loads(Path(made["report"]).read_text()) == made
    assert "import triton" in Path(made["module"]).read_text()


def test_compile_can_stop_at_the_source(attnc: Callable[..., Ran]) -> None:
    made = attnc("compile", "causal", "--source-only", "--json").json()
    assert (made["module"], made["kernels"]) == ("causal.py", [])


def test_compile_refuses_a_target_that_nobody_knows(attnc: Callable[..., Ran]) -> None:
    ran = attnc("compile", "causal", "--target", "h20")
    assert ran.status == 1
    assert "did you mean `h200`?" in ran.err


def test_verify_compares_with_float64(attnc: Callable[..., Ran]) -> None:
    shape = "B=1,H=2,G=1,M=7,N=13,D=5,E=6"
    found = attnc("verify", "causal", "--shape", shape, "--json").json()
    assert found["ok"] is True
    assert found["outputs"]["O"].keys() >= {"max_abs", "rel", "allowed"}
    assert found["outputs"]["O"]["max_abs"] <= found["outputs"]["O"]["allowed"]
    assert found["backend"] in ("interpreter", "gpu")


def test_verify_fails_where_the_kernel_is_wrong(
    attnc: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = emit(load("causal").plan)
    wrong = right.replace("<= offs_m", "< offs_m")
    assert wrong != right
    monkeypatch.setattr("attnc.codegen.emit", lambda plan: wrong)
    ran = attnc("verify", "causal", "--shape", "B=1,H=2,G=1,M=7,N=70,D=5,E=6", "--json")
    assert ran.status == 1
    assert ran.json()["ok"] is False
