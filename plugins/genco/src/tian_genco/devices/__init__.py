"""Inverse design, as a stand-in: binary designs a brush can draw, judged as networks of resistors. No electromagnetics."""
