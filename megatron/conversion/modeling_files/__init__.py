"""Model code that travels inside exports; each file needs torch and transformers alone."""
