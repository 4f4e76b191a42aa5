"""Layer 2, torch side: (outputs, batch) -> (sum, count), named."""
