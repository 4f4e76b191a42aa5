"""Layer 0: the nouns that travel, window -> example -> row -> batch. Frozen dataclasses that check their shapes."""
