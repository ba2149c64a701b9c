"""coopshm-admin doctor: what on this host keeps caches from working as configured, and what to do about it.

    finding   what an examination has found
    host      the facts: files of /proc, /sys and /etc, read and parsed
    memory    /dev/shm, its size and that of the memory cgroup, beside what the caches may take
    system    kernel, libc, Python, limits, logind, namespaces
    objects   what lies in /dev/shm: other layouts, damage, owners, leftovers, and what the caches themselves tell
    command   the command

Each examination is a generator of findings over the facts, so each can be held to a host of the test's making. It only
looks: it takes no lock and no row, creates nothing, and can run beside a server as often as anybody likes.
"""
