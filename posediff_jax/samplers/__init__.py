"""Samplers as functions, fan-out over hypotheses, aggregation."""
