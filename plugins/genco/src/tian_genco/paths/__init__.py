"""Shortest paths on grids: the problem, exact solvers, terrain to practise on, and maps of Warcraft II."""
