"""The device layer: TUN devices, network namespaces, capture files and the link emulator.

Everything here speaks to the Linux kernel and nothing here knows TCP or MPTCP: this package imports
no other part of the project, and is reached from the code as `mptcp.tun`.
"""
