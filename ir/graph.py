"""A cascade as a graph: who reads whom. networkx is imported on use: it takes 0.2 s."""

from __future__ import annotations

from typing import Any

from attnc.ir.cascade import Cascade, Statement
from attnc.ir.walk import statement_reads

# networkx ships no types; a graph is opaque outside this folder's analyses.
MultiDiGraph = Any


def cascade_graph(cascade: Cascade) -> MultiDiGraph:
    """A `networkx.MultiDiGraph`: one edge per read, from what defines a tensor to what reads it.

    A statement's node is its position (an int, with attribute `statement`), an input's its name (a
    str, with attribute `declaration`). An edge has `read`, the `Read` with its indices; a tensor
    with an initial value and a step has an edge from both.
    """
    import networkx as nx

    graph = nx.MultiDiGraph()
    graph.add_nodes_from((t.name, {"declaration": t}) for t in cascade.inputs)
    sources: dict[str, list[int | str]] = {t.name: [t.name] for t in cascade.inputs}
    for position, statement in enumerate(cascade.statements):
        graph.add_node(position, statement=statement)
        sources.setdefault(statement.tensor, []).append(position)
    for position, statement in enumerate(cascade.statements):
        for read in statement_reads(statement):
            graph.add_edges_from((s, position, {"read": read}) for s in sources[read.tensor])
    return graph


def used_positions(cascade: Cascade) -> tuple[int, ...]:
    """The positions of the statements that some output depends on, in order."""
    used: set[int] = set()
    wanted = set(cascade.outputs)
    while fresh := {
        i for i, s in enumerate(cascade.statements) if s.tensor in wanted and i not in used
    }:
        used |= fresh
        wanted |= {r.tensor for i in fresh for r in statement_reads(cascade.statements[i])}
    return tuple(sorted(used))


def used_statements(cascade: Cascade) -> tuple[Statement, ...]:
    """The statements without the dead ones, in order."""
    return tuple(cascade.statements[i] for i in used_positions(cascade))


def topological_order(cascade: Cascade) -> tuple[Statement, ...]:
    """The statements, producers first; those of one recurrence stay together, in written order.

    Among independent statements the written order is kept.
    """
    import networkx as nx

    graph = cascade_graph(cascade)
    graph.remove_nodes_from([t.name for t in cascade.inputs])
    # An iteration reads its own tensor, so the graph has cycles: order its components.
    parts = nx.condensation(nx.DiGraph(graph))
    first = {n: min(members) for n, members in parts.nodes(data="members")}
    ordered = nx.lexicographical_topological_sort(parts, key=first.__getitem__)
    return tuple(cascade.statements[i] for n in ordered for i in sorted(parts.nodes[n]["members"]))
