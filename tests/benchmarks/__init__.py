"""How fast sleighexec is beside its peers: `python -m tests.benchmarks`, see __main__.py."""
