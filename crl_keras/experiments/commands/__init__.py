"""What the scripts of examples/ and the command `crl-keras` do."""
