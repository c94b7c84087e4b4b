"""Recording: the operations of a forward pass, on stand-ins for its tensors."""
