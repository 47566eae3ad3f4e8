"""The scripts of examples/ and the command `crl-keras`.

`arguments` has the parsers, `plans` turns parsed arguments into a plan,
`running` runs the plan and `progress` shows its progress. `find_rate`,
`predict`, `export`, `report` and `reproduce` are separate commands. `own` is
`compare_losses` for the user's own model. `main` is `crl-keras`. This folder
may import every other folder of `experiments`; no other may import it.
"""
