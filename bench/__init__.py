"""Measurements, run by hand or in CI: see bench/README.md."""
