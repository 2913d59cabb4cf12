"""Rows from files and streams, as sources that `fit` takes in the place of X."""
