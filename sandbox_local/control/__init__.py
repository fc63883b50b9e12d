"""The control plane: which sandboxes exist, how long they live, and the REST interface that says so."""
