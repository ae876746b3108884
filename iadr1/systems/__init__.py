"""The systems of Table 1 and others that are compared with IAD-R1, as data, and how to evaluate them. See `iadr1 systems`."""
