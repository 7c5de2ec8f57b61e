"""``python -m fastnorm info | warmup``"""

from __future__ import annotations

import argparse

import fastnorm


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fastnorm", description="Normalization of tensors on CPUs.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="versions, CPU, threads, threading layer, cache folder")
    warm = commands.add_parser("warmup", help="compile ahead of the first call")
    warm.add_argument("dtypes", nargs="*", default=["float32"], help="dtypes of the inputs to come (default: float32)")
    options = parser.parse_args()
    if options.command == "info":
        fastnorm.show_config()
    else:
        try:
            print(f"{fastnorm.warmup(options.dtypes)} calls are compiled")
        except TypeError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
