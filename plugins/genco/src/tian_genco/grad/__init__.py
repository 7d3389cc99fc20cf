"""Gradients through solvers: cost normalisation, estimators, losses, and what each estimator is worth."""
