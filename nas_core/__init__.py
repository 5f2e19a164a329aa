"""The method: ProxylessNAS with a differentiable latency. Needs torch and nothing else.

Source: Cai, Zhu & Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware" (ICLR 2019). Nothing in here reads a disk, a network, a clock or an environment variable.
"""
