"""Engines: what builds and runs a graph, behind one protocol."""
