"""GenCO: generators trained through combinatorial solvers."""
