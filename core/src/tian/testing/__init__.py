"""Fakes of the seven roles and fixtures for people who test plugins."""
