"""Attention on modelled spatial arrays: FuseMax, its two steps on the way, FLAT, unfused.

    python benchmarks/spatial_array.py [--designs flat] [--models BERT] [--means] [--json FILE]

Prints latency, traffic and utilisation for each model and length, attention alone and with the
linear layers around it; then means over all of them, or only these with --means. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from attnc.errors import AttncError
from attnc.runtime.spatial.designs import design_names, load_design
from attnc.runtime.spatial.models import LENGTHS, load_model, model_names, show_length
from attnc.runtime.spatial.simulate import Prediction, simulate

BASELINES = ("flat", "unfused")


def print_rows(design: str, rows: Sequence[Prediction]) -> None:
    """One line per model and length."""
    print(f"\n{design}: {load_design(design).title}")
    print("model  length  attention ms  + linear ms  traffic GB  2d used  1d used  limited by")
    for p in rows:
        print(
            f"{p.model:6s} {show_length(p.length):>6s} {p.ms:13.6g} {p.end_to_end_ms:12.6g} "
            f"{p.traffic_bytes / 1e9:11.6g} {p.utilisation['2d']:8.1%} {p.utilisation['1d']:8.1%}"
            f"  {p.bottleneck}"
        )


def print_means(rows: Mapping[str, Sequence[Prediction]]) -> None:
    """Arithmetic means: utilisation, and speedup over each baseline row by row."""
    against = [b for b in BASELINES if b in rows]
    titles = "".join(f"  over {b:8s} + linear" for b in against)
    print(f"design           passes  2d used  1d used{titles}")
    for design, own in rows.items():
        used = [mean(p.utilisation[unit] for p in own) for unit in ("2d", "1d")]
        line = f"{design:16s} {own[0].passes:6d} {used[0]:8.1%} {used[1]:8.1%}"
        for base in against:
            pairs = list(zip(rows[base], own, strict=True))
            attention = mean(b.ms / p.ms for b, p in pairs)
            whole = mean(b.end_to_end_ms / p.end_to_end_ms for b, p in pairs)
            line += f"  {attention:12.2f}x {whole:7.2f}x"
        print(line)


def main() -> int:
    """Print the tables; 1 if a name is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", default=",".join(design_names()))
    parser.add_argument("--models", default=",".join(model_names()))
    parser.add_argument("--means", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        designs = [load_design(d).name for d in args.designs.split(",")]
        models = [load_model(m) for m in args.models.split(",")]
        rows = {d: [simulate(d, m, n) for m in models for n in LENGTHS] for d in designs}
    except AttncError as e:
        print(e, file=sys.stderr)
        return 1
    for design in [] if args.means else designs:
        print_rows(design, rows[design])
    if not args.means:
        print("\nmeans over the models and lengths above")
    print_means(rows)
    if args.json:
        written = [p.to_dict() for d in designs for p in rows[d]]
        args.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
