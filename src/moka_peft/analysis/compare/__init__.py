"""Compares methods under equal conditions: a grid of runs, their results, intervals and reports."""
