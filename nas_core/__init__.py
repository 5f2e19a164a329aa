"""The search method: ProxylessNAS with a differentiable latency. Depends on torch alone.

Source: Cai, Zhu & Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware" (ICLR 2019). Nothing in this package reads a disk, the network, a clock or an environment
variable.
"""
