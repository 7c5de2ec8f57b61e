"""Threads, compiled-code folder, output recycling, configuration."""
