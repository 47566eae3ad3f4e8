"""What the scripts of examples/ and the command `crl-keras` do.

`arguments` has the parsers, `plans` makes a plan of what was parsed, `running`
runs it, `progress` shows how far it is. `find_rate`, `predict`, `export`,
`report` and `reproduce` are commands of their own, `own` is `compare_losses`
for a model of the user's, `main` is `crl-keras`. This room may import every
other room; none may import it.
"""
