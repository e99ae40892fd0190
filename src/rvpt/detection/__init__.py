"""Detection: whether a model is backdoored, and towards which class."""
