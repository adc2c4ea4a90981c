"""``dabench`` and ``python -m dabench``."""

import atexit
import gc
import sys

INTERRUPTED = 130


def main() -> None:
    """Runs the command line; a Ctrl-C while it is still being imported ends it quietly too."""
    # A process that ends would look through all that torch imported for what nobody needs: a
    # second's work.
    atexit.register(gc.freeze)
    try:
        from dabench.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
