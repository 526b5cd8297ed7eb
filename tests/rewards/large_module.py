"""A reward's module that needs more memory than a worker of 0.25 GiB has."""

TABLE = bytearray(1 << 30)


def f(problem: object, completion: object) -> float:
    return 1.0
