"""Cut a framework's graph into the regions that become engines and the rest that runs natively."""

__all__ = ["Guard", "HostGraph", "Partition", "Region", "partition"]

from trt_backend.partition.host_graph import Guard, HostGraph
from trt_backend.partition.regions import Partition, Region, partition
