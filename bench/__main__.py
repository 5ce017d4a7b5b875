"""`python -m bench` is the command `bench`."""

from __future__ import annotations

from bench.cli.main import main

if __name__ == "__main__":
    main()
