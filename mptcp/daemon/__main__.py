"""`python -m mptcp.daemon`: mptcpd, whatever else has that name in the PATH."""

import sys

from mptcp.daemon.main import main

if __name__ == "__main__":
    sys.exit(main())
