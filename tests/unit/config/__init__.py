"""The shape of the configuration, and what is said of mistakes in it."""
