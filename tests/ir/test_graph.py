"""The graph view: edges are reads, dead statements are found, recurrences stay together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from attnc.dsl import load_text
from attnc.ir.graph import cascade_graph, topological_order, used_statements

CASCADES = Path(__file__).parent.parent / "cascades"
STREAMS = load_text((CASCADES / "two_streams.attn").read_text())
LINEAR = load_text((CASCADES / "linear_iterative.attn").read_text())


def test_edges_are_reads() -> None:
    graph = cascade_graph(STREAMS)
    edges = {(p, c): read.tensor for p, c, read in graph.edges(data="read")}
    assert edges == {("A", 0): "A", (0, 1): "Y", ("C", 1): "C"}
    assert graph.nodes[1]["statement"] == STREAMS.statements[1]


def test_an_initial_value_and_its_step_both_feed_a_reader() -> None:
    graph = cascade_graph(LINEAR)
    assert [s.tensor for s in LINEAR.statements] == ["S", "S", "O"]
    assert set(graph.predecessors(2)) == {0, 1, "Q"}


def test_producers_come_first_and_recurrences_stay_together() -> None:
    backwards = replace(LINEAR, statements=LINEAR.statements[::-1])
    assert topological_order(backwards) == LINEAR.statements


def test_dead_statements_are_dropped() -> None:
    text = "attention t\ninput A[k]\nX[k] = exp(A[k])\nY[] = sum(k) A[k]\noutput Y[]"
    assert [s.tensor for s in used_statements(load_text(text))] == ["Y"]


def test_counting_passes_does_not_import_networkx() -> None:
    code = "import sys, attnc.ir.count_passes; sys.exit('networkx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
