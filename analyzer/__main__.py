"""``python -m analyzer`` is ``sparkshark``."""

import sys

from analyzer.cli import main

sys.exit(main())
