"""Goodput of Wi-Fi and LTE together, with an outage: `python examples/experiment.py [plot.png]`.

Half a minute in virtual time: one path at 8 Mbit/s, cut for six seconds, and one whose rate follows
an LTE-like trace. What each path carries is drawn when a file is named (needs matplotlib).
"""

import argparse

from mptcp.sim import Bulk, LinkChange, Simulation, Sink, lte_trace

parser = argparse.ArgumentParser(description="Wi-Fi and LTE together, with an outage.")
parser.add_argument("plot", nargs="?", help="the file to draw in, such as plot.png")
plot = parser.parse_args().plot

sim = Simulation(seed=1)
a, b = sim.host("client"), sim.host("server")
wifi = sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", rate_bps=8_000_000, delay_us=10_000)
changing = LinkChange(rate_trace=lte_trace(seed=3), queue_bytes=150_000)
lte = sim.connect(a, "10.0.2.1/24", b, "10.0.2.2/24", delay_us=30_000, forward=changing)
sim.change(wifi, LinkChange(queue_bytes=40_000))
sim.at(sim.now + 12_000_000, lambda: sim.set_down(wifi, True))
sim.at(sim.now + 18_000_000, lambda: sim.set_down(wifi, False))

sink = Sink(b)
Bulk(a, "10.0.1.2")
curves = {
    "goodput": sink.goodput(500_000),
    "Wi-Fi": sim.sample(500_000, lambda: wifi[0].link.stats.bytes),
    "LTE": sim.sample(500_000, lambda: lte[0].link.stats.bytes),
}
sim.run(30_000_000)

for name, curve in curves.items():
    print(f"{name:7} {sum(curve.mbit_s) / len(curve.mbit_s):5.2f} Mbit/s")
if plot:
    from matplotlib.figure import Figure

    axes = (figure := Figure()).subplots()
    for name, curve in curves.items():
        axes.plot(curve.seconds, curve.mbit_s, label=name)
    axes.set(xlabel="virtual time, s", ylabel="Mbit/s")
    axes.legend()
    figure.savefig(plot)
