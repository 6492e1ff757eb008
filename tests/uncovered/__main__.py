"""Run the command where pytest would have found its helpers:  python -m tests.uncovered"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from uncovered.command import main

if __name__ == "__main__":
    sys.exit(main())
