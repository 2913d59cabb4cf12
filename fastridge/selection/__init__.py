"""Choosing the penalty: scores of all penalties, targets and folds from decompositions that they share."""
