# @@name@@ predicts the most active quarter of the neurons of a random layer: recall on new tokens
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, rank: 16}
tokens: 512
