"""Sandboxes in web frameworks: one module each, which needs the framework of its name."""
