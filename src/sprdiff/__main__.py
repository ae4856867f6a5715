"""``python -m sprdiff`` is ``sprdiff``."""

import sys

from .cli import main

sys.exit(main())
