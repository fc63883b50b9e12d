"""Isolated Linux environments made from kernel namespaces.

`base` is the seam to the rest of the server, `namespaces` what implements it. `making` holds the process that
forks boxes and the root file system that they get, `inside` what runs in a box as its first process, and
`files` what does a box's file operations in it. These three import nothing of the server's side.
"""
