# @@name@@ plans steps to a point: the share of the way that is left
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, horizon: 6}
evals: 400
