"""What genpipe says when the input or the machine, not the code, is at fault."""


class BadInput(Exception):
    """Something a person can mend: one line that says what was wanted, what came, where, and the remedy.

    The command line prints the line and ends with status 2; nothing half-written is left behind.
    """


class ClusterLost(Exception):
    """What the work ran on is gone: one line. Nobody need mend anything; the same command goes on where it stopped.

    The command line prints the line and ends with status 1, so that a flow tries again.
    """
