"""What bounds the memory, processes and processor time of a sandbox: control groups where there are any."""
