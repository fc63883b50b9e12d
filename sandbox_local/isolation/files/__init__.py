"""The file operations of a box, done inside it by a process of its own."""
