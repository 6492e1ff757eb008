"""Writes a workload:  python -m tests.benchmarks.workloads fleet --out DIR [--scale 0.01]"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import FORMATS, LINKS, WORKLOADS, make
from . import __doc__ as kinds


def main() -> None:
    """Write what was asked for, each workload into a folder of its own name."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.workloads",
        description=kinds,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=[*WORKLOADS, "all"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder is made there for each")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers above (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of keys and everything else (default 1)")
    parser.add_argument("--format", choices=FORMATS, default="pcap", dest="form")
    parser.add_argument("--link", choices=LINKS, default="ethernet")
    parser.add_argument("--split", type=int, default=1, metavar="N", help="the capture as N files, one after the other")
    wanted = parser.parse_args()
    for name in WORKLOADS if wanted.workload == "all" else [wanted.workload]:
        made = make(
            name,
            wanted.out / name,
            scale=wanted.scale,
            seed=wanted.seed,
            form=wanted.form,
            link=wanted.link,
            split=wanted.split,
        )
        print(f"{name}: {', '.join(map(str, made.captures[:3]))}{' ...' if len(made.captures) > 3 else ''}")


if __name__ == "__main__":
    main()
