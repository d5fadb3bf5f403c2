"""`python -m ops` is the command `renkei`."""

import sys

from ops.cli import main

sys.exit(main())
