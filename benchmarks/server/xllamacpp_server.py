"""llama.cpp's server as its users' wheel brings it: `beside_llama.py` starts it and asks it.

    python xllamacpp_server.py FILE ROWS CONTEXT THREADS

It runs where xllamacpp is installed and this project is not. It prints its address, and ends when
its standard input does.
"""

import os
import sys

import xllamacpp


def main(file: str, rows: str, context: str, threads: str) -> None:
    """Serve a file, with so many answers at once, each with so many tokens of context."""
    address = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints goes elsewhere than the address
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel = file, int(rows)
    params.n_ctx, params.port = int(rows) * int(context), 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(params)
    os.write(address, f"{server.listening_address}\n".encode())
    sys.stdin.read()
    os._exit(0)  # its threads would go on


if __name__ == "__main__":
    main(*sys.argv[1:])
