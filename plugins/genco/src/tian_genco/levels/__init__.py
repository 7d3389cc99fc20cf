"""Game levels of tiles: rules, exact solver, data, drawing."""
