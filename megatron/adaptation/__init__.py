"""Checkpoints that go on as another architecture or with another objective."""
