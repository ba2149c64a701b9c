"""What the machine does to a cache: a full /dev/shm, namespaces, clocks, operators, other users."""
