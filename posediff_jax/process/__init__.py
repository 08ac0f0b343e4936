"""Diffusion processes: schedules and conversions."""
