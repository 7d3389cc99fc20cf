"""Designs of a trained generator under further rules, their certificates, and models of the user's own."""
