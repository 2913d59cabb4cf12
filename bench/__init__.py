"""Benchmarks: time, memory and accuracy of a ridge fit, at equal accuracy, next to scikit-learn."""
