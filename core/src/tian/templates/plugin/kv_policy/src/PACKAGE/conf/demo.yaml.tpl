# a random stream read under @@name@@: tokens kept, and how far the logits are from exact ones
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, budget: 8}
tokens: 32
