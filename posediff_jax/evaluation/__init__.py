"""Metrics, protocols, reports, throughput."""
