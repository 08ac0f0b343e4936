"""Parity checks, one module per system, each with a `CHECKS` table from kind to check."""
