"""What a user asks of a channel graph: shares, reasons, explanations, plans."""
