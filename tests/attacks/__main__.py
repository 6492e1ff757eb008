"""python -m tests.attacks"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks.command import main

sys.exit(main())
