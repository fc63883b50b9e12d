"""The embedded local sandbox server: E2B-compatible sandboxes made of kernel namespaces on this machine."""
