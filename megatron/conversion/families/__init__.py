"""Families of models that both sides know: one file each."""
