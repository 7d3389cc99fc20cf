# @@name@@ judges a calculator that is right at a known rate: how many of its intervals contain the rate
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, resamples: 500}
evaluations: 300
