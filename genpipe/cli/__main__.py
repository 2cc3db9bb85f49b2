"""`python -m genpipe.cli`, where the command is not installed."""

import sys

from genpipe.cli import main

sys.exit(main())
