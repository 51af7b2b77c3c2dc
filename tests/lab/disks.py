"""Real file systems for the daemon's state, which a test can hang, break, or spoil.

    with Disk(folder) as disk:          # ext4 on a loop device
        daemon({"state_dir": str(disk.path)})
        with disk.hanging(): ...        # every write waits, as on a flash chip that cleans up
        disk.fail()                     # the kernel finds an error: read-only from now on
        disk.die()                      # nothing can be read or written any more
"""

import contextlib
import fcntl
import os
import subprocess

from harness import wait_until

IMAGE_BYTES = 64 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_ITS_LOG = (2).to_bytes(4, "little")


def run(*command):
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Disk:
    def __init__(self, folder):
        self.path, self.image, self.hangs = folder / "disk", folder / "disk.img", False

    def __enter__(self):
        self.path.mkdir(exist_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.mount()
        return self

    def __exit__(self, *exception):
        self.thaw()
        self.unmount()
        self.image.unlink()

    def mount(self):
        run("mount", "-o", "loop,errors=remount-ro", self.image, self.path)

    def unmount(self):
        """And wait until the loop device has let go of the image, which it does when it likes."""
        run("umount", self.path)
        wait_until("the image is free", self.is_free)

    def is_free(self):
        users = subprocess.run(["losetup", "-j", str(self.image)], capture_output=True, check=True)
        return not users.stdout

    def repair(self):
        """As a person would: unmounted, checked, mounted again."""
        self.unmount()
        subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True)
        self.mount()

    def thaw(self):
        if self.hangs:
            run("fsfreeze", "-u", self.path)
        self.hangs = False

    @contextlib.contextmanager
    def hanging(self):
        run("fsfreeze", "-f", self.path)
        self.hangs = True
        try:
            yield
        finally:
            self.thaw()

    def fail(self):
        found = subprocess.run(["findmnt", "-no", "SOURCE", str(self.path)],
                               check=True, capture_output=True, text=True)  # fmt: skip
        device = found.stdout.strip().rpartition("/")[2]
        with open(f"/sys/fs/ext4/{device}/trigger_fs_error", "w") as trigger:
            trigger.write("a test broke it")

    def die(self):
        folder = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, WITHOUT_ITS_LOG)
        os.close(folder)
