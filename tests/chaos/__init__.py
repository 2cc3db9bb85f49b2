"""Attacks on a run of the flow: what dies at a random time, and what must be the same afterwards."""
