"""Boxes whose commands run on gVisor's kernel, in a box of namespaces as the outer shell.

Outside of gVisor, but in the box's namespaces, run its own processes, the file worker and an agent, `outer`.
Inside, a second agent, `inner`, starts the commands; nobody trusts what it says.
"""
