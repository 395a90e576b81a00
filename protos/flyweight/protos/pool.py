"""The descriptor pool that holds every message of ours.

`tritonclient`, `kserve` and others register their own copies of the package `inference` in protobuf's
default pool, and two different files for one package cannot live in the same pool. Generated code here
registers in this pool instead, so an application may import us and them in one process, in any order.
"""

from typing import Final

from google.protobuf.descriptor_pool import DescriptorPool

POOL: Final = DescriptorPool()
