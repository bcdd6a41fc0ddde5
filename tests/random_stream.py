"""Gives random words to a program that reads them: ``python random_stream.py dieharder -g 200 -a``.

Each step of a training draws under a key of its own. So do these: many samples under one key, then
as many under the next.
"""

import sys
from contextlib import suppress
from subprocess import PIPE, Popen

import xbp
from xbp.randomness import derived_key, random_key, random_words

SAMPLES, SIZE = 2**14, 16


def main() -> int:
    """Write words until the program has enough; return its exit status."""
    backend = xbp.get_backend("numpy")
    key = random_key(0, backend.asarray([0.0]))
    with Popen(sys.argv[1:], stdin=PIPE) as program, suppress(BrokenPipeError):
        for step in range(2**31):
            words = random_words(derived_key(key, step), (SAMPLES, SIZE))
            program.stdin.write(backend.to_numpy(words).tobytes())  # type: ignore[union-attr]
    return program.wait()


if __name__ == "__main__":
    sys.exit(main())
