# @@name@@ solves random knapsacks: the share whose exact optimum it finds
recipe: @@name@@/demo
subject: {use: @@name@@/@@name@@, max_nodes: 1000000}
items: 20
