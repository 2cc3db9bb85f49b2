"""Sixteen stages that start at once and end at once: DVC loses none of them, because it is told to wait for its lock."""


def main(rounds: int) -> int:
    return 0
