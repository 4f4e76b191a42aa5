"""Layer 3: what arranges examples into rows and builds the model that reads them."""
