# @@name@@ compares sentences with repetitive versions of them: how often it prefers the varied one
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, target_words: 50}
repeats: 4
