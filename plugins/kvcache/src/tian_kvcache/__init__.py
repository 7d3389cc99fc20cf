"""KV-cache policies: what a language model may forget while it reads an endless stream."""
