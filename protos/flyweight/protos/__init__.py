"""Every contract of flyweight: what goes over the wire, what lies on disk, and the code both need once."""
