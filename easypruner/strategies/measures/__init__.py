"""What strategies measure: sums over units, activations, gradients, batch statistics."""
