"""glm4q as on a machine that has no instruction set newer than the named one.

    python -m benchmarks.limited avx2 bench build/demo/int4

torch's own kernels and llama.cpp are not limited by it: ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA
do that for torch, from outside.
"""

import sys

from glm4q.cli import main
from tests.instruction_sets import limit_to

if __name__ == "__main__":
    name = sys.argv.pop(1)
    limit_to(name)
    sys.exit(main())
