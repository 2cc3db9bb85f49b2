"""The `genpipe` command: one sub-command a stage calls, one a person calls.

Imports of torch, ray and pandas stay inside the commands: `genpipe --help` must answer at once.
"""

import argparse
import contextlib
import io
import os
import select
import sys
from pathlib import Path

from genpipe.cli import (
    corpus,
    data,
    discovery,
    registry,
    templates,
    tokenizers,
    training,
    upkeep,
    using,
    views,
)
from genpipe.cli.arguments import Command, is_of_model, named_item
from genpipe.errors import BadInput, exit_status

DESCRIPTION = """\
genpipe trains generative and language models from versioned data.
An artifact is a function of data, code and parameters, never of the cluster.

  genpipe data                  fetch and verify the raw data
  dvc repro                     run every stage that is out of date (or: make run)
  genpipe plan                  what is out of date, and why
"""

EXITS = """\
exit status, of these commands and of python -m flows.NAME:
  0    all went well
  1    a part of the work failed, or a check found something wrong; a traceback is a defect of genpipe
  2    what was given or the state of the project is not valid; the line says what to change
  69   Ray, a network, Git, DVC, storage or the disk is unavailable; run the same command later
  75   another process does this work or holds the lock; wait for it
  130  interrupted; run the same command again: stages, counts and trainings go on where they stopped
"""

OUTPUT_CLOSED = 141  # exit status, as a shell reports a process that SIGPIPE ended


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it went well, 1 when it found something wrong, else the status of its error."""
    from genpipe import files, lease, numerics, own_code

    _show_what_cannot_be_shown()
    arguments = build_parser().parse_args(argv)
    if arguments.command is None:
        build_parser().print_help()
        return 0
    root = Path(arguments.root).resolve()
    stage = os.environ.get("DVC_STAGE")
    try:
        if not root.is_dir():
            raise BadInput(f"{root}: no such directory; go to the root of the project")
        if stage:
            own_code.become(root, sys.argv[1:] if argv is None else argv)
        own_code.require(root, "genpipe")
        numerics.use(numerics.of(root))
        with contextlib.ExitStack() as held:
            if stage:
                lease.die_with_parent()
                for directory in ("artifacts", ".genpipe"):
                    held.callback(files.remove_remains, root / directory)
            writer = stage or _writer(arguments)
            if writer:  # two at once would share a run, by hand or under DVC
                held.enter_context(lease.hold(root, writer.replace(os.sep, "_")))
            status = arguments.run(root, arguments) or 0
            sys.stdout.flush()
            return status
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return OUTPUT_CLOSED
        if (end := exit_status(error)) is None:
            raise
        print(f"genpipe: {end[1]}", file=sys.stderr)
        return end[0]


def _writer(arguments: argparse.Namespace) -> str | None:
    """The name of a command that writes what a stage writes; None for others, of which many may run at once."""
    named = named_item(arguments)
    return f"{arguments.command}@{named}" if named and not is_of_model(arguments) else None


def _show_what_cannot_be_shown() -> None:
    """Let a terminal that lacks a character show its number, as that of errors does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _output_is_closed() -> bool:
    """Whether what reads our output has ended, as in `| head`; what is still held for it then goes nowhere."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    is_closed = any(event & select.POLLERR for _, event in watched.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="genpipe",
        description=DESCRIPTION,
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", default=".", help="the project (where params.yaml is); default: here")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", parser_class=Command
    )

    for part in (data, corpus, tokenizers, discovery, templates, training, using, registry, views, upkeep):
        part.add(commands)
    return parser
