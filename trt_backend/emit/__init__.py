"""From IR graphs to the networks that engines are built from: one package for each target, one file for each op family."""
