"""Patches: how two layers differ, what makes one of the other, and applying that."""
