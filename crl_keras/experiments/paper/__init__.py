"""The tables and figures of the CRL paper (arXiv:1912.11642v2)."""
