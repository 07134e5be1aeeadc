"""Launchers: start this command somewhere and give me its stdin and stdout."""
