"""Runs the kit as `python -m camserve_conformance URL`."""

import sys

from camserve_conformance.cli import main

sys.exit(main())
