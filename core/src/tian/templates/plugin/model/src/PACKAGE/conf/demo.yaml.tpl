# @@name@@ learns a sine: the error on new points as a share of that of the mean
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, width: 32}
steps: 300
