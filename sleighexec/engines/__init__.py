"""Engines: run these tasks on workers you know."""
