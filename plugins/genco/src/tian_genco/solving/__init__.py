"""Solvers, what they prove, and models written in Pyomo."""
