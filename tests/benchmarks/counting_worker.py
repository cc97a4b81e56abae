"""A measuring process without a model: it counts its rounds, fails or hangs, as it is told."""

import json
import sys
import time

from benchmarks.gpu.turns import Turn


def main() -> None:
    turn = Turn()
    specification = json.loads(sys.argv[1])
    if specification.get("fails"):
        turn.fail("out of memory")
        return
    if specification.get("crashes"):
        sys.exit("the last words")
    number = 0
    while True:
        if number == specification.get("hangs_at"):
            time.sleep(60)
        turn.report({"counted": number})
        number += 1


if __name__ == "__main__":
    main()
