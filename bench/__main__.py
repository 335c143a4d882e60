# SPDX-License-Identifier: Apache-2.0
"""`python -m bench` is `python bench/run.py`: modules here import each other by top-level names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run import main

if __name__ == "__main__":
    sys.exit(main())
