"""Guests: other people's compilers, frameworks and clusters. Each is imported in its own module only, and nobody imports these."""
