"""`python -m glm4q` is `glm4q`."""

import sys

from glm4q.cli import main

sys.exit(main())
