"""Guests: the library inside other people's compiled code, frameworks and clusters."""
