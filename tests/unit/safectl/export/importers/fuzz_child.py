"""A program of its own: damaged copies of a model file go through the door, within limits.

python fuzz_child.py FILE FIRST COUNT; copy number n < 64 is cut at n / 64 of its length, the others
have one to ten bytes changed. Prints how many became programs, and how many were refused.
"""

import json
import random
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from safectl.errors import FileFormatError, UnsupportedLayer
from safectl.export.importers import import_model

ADDRESS_BYTES, CPU_SECONDS_PER_FILE = 6 << 30, 5
CUTS = 64


def damaged(content: bytes, number: int) -> bytes:
    if number < CUTS:
        return content[: len(content) * number // CUTS]
    generator = random.Random(number)
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 10))):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def main() -> None:
    path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    seconds = CPU_SECONDS_PER_FILE * count
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    content, outcomes = path.read_bytes(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for number in range(first, first + count):
            copy.write_bytes(damaged(content, number))
            try:
                import_model(copy, name="net")
                outcomes["program"] += 1
            except (FileFormatError, UnsupportedLayer):
                outcomes["refused"] += 1
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
