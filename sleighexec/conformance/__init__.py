"""What is expected of an executor, as tests that run over any `concurrent.futures.Executor` class.

    pytest --pyargs sleighexec.conformance --executor=module:Class

    plugin ─▶ test_contract ─▶ runner ─ process of its own ─▶ child ─▶ case(make)
                                  └─ time limit, verdict, nothing left behind ─▶ table

A case is a function that makes executors and uses them. It runs in an interpreter of its own, so
that a class that hangs, crashes or leaves processes behind fails that one case and no other.
"""
