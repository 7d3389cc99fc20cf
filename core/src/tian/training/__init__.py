"""The one way anything is trained here: `fit` on a Lightning Trainer built from the config."""
