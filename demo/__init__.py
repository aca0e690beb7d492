"""`make demo`: a file crosses two paths between two hosts, loses one path half way, and goes on.

Two network namespaces are the hosts, each with an `mptcpd`; the link emulator is the network
between them. `scenario` is the run from end to end, `network` the topology, `hosts` the programs in
it, `judgement` the arithmetic and the verdicts, `show` what a person sees. `fetch` and
`kernel_server` are programs of their own that know nothing of this package.
"""
