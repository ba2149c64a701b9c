/* Takes the write lock of the segment named in argv[1], as an app or (argv[2]) an observer, and stops itself inside the critical section. Continued, it
 * lets go and ends. Nothing in api.h holds the lock for longer than a few instructions, so this is linked with csrc/. */
#include "core.h"
#include "lock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    csm *h;
    int created, flipped;
    int fd = argc == 3 ? shm_open(argv[1], O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return perror("shm_open"), 2;
    int code = csm_open(fd, NULL, 0, &h, &created);
    int role = strcmp(argv[2], "app") == 0 ? CSM_APP : CSM_OBSERVER;
    if (code == CSM_OK) code = csm_join(h, role, 0, NULL, 0, &flipped);
    if (code == CSM_OK) code = csm_lock(h);
    if (code != CSM_OK) return fprintf(stderr, "code %d\n", code), 3;
    raise(SIGSTOP);
    csm_unlock(h);
    return 0;
}
