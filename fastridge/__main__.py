"""The command line; without the packages that it needs, what of it does without them."""

from __future__ import annotations

import sys

from fastridge import installation

try:
    from fastridge.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("typer", "rich"):
        raise
    missing = error.name

    def main(arguments: list[str] | None = None) -> int:
        """Do `info` and `check`, and say of all else what is missing; return the exit status"""
        arguments = sys.argv[1:] if arguments is None else arguments
        if arguments == ["info"]:
            installation.info()
            return 0
        if arguments == ["check"]:
            return installation.check()
        print(
            f'error: the command line needs {missing}, which is not installed: pip install "fastridge-solvers[cli]" '
            "(info and check work without it)",
            file=sys.stderr,
        )
        return 2 if not arguments else 1


if __name__ == "__main__":
    sys.exit(main())
