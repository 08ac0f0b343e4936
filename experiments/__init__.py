"""Scripts to run with `python -m experiments.NAME`; each wraps an importable `run`."""
