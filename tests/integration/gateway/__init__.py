"""The API on a real database and a real Redis; peers and the deposit's flow are fakes."""
