"""Benchmarks: commands, `python -m tests.bench.<name>`, that print figures and assert nothing about them."""
