"""``python -m sprdiff`` is ``sprdiff``."""

import sys

from .start import main

sys.exit(main())
