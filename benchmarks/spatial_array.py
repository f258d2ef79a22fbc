"""Attention on modelled spatial arrays: FuseMax, its two steps on the way, FLAT, unfused.

    python benchmarks/spatial_array.py [--designs flat] [--models BERT] [--means] [--json FILE]

Prints latency, traffic and utilisation for each model and length, attention alone and with the
linear layers around it; then means over all of them, or only these with --means. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from attnc.array_tables import mean_lines, row_lines
from attnc.errors import AttncError
from attnc.runtime.spatial.designs import design_names, load_design
from attnc.runtime.spatial.models import LENGTHS, load_model, model_names
from attnc.runtime.spatial.simulate import simulate


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
        print("", *row_lines(design, rows[design]), sep="\n")
    if not args.means:
        print("\nmeans over the models and lengths above")
    print(*mean_lines(rows), sep="\n")
    if args.json:
        written = [p.to_dict() for d in designs for p in rows[d]]
        args.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
