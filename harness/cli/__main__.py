"""`python -m harness.cli`: the program where its entry point is not installed."""

from harness.cli import main

main()
