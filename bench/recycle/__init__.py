"""Servers that replace their workers under load: the app, the load, and what becomes of both."""
