"""Criteria beside those of each family's original code; `docs/parity.md`."""
