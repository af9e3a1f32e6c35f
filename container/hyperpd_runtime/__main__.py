"""`python -m hyperpd_runtime`: become the role that environment and argv name."""

from __future__ import annotations

import asyncio
import os
import sys

from hyperpd import environment
from hyperpd.errors import HyperpdError
from hyperpd_runtime import settings
from hyperpd_runtime.node import Node


def main() -> int:
    """Exit code 0 after a clean stop, otherwise the error's."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{settings.__doc__}\n{environment.__doc__}")
        for name, kind, default, roles, meaning in environment.table():
            told = default if default == "required" else f"default {default}" if default else "optional"
            print(f"  --{name:<15} {meaning} ({kind}, {told}; read by: {roles})")
        return 0
    try:
        node = Node(settings.read(sys.argv[1:], os.environ))
    except HyperpdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return asyncio.run(node.run())


if __name__ == "__main__":
    sys.exit(main())
