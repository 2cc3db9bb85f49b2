"""What genpipe says when the input, not the code, is at fault."""


class BadInput(Exception):
    """Something a person can mend: one line that says what was wanted, what came, where, and the remedy.

    The command line prints the line and ends with status 2; nothing half-written is left behind.
    """
