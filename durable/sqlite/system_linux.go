package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is the time since the machine started, sleep included.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(ts.Nano())
}

// machine names this start of this machine: what ran before it is dead.
func machine() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}

// networks are file systems whose locks, or whose shared memory, do not reach
// other machines.
var networks = map[int64]string{
	0x6969: "NFS", 0x517b: "SMB", 0xff534d42: "CIFS", 0xfe534d42: "SMB2", 0x01021997: "9P", 0x5346414f: "AFS", 0x73757245: "Coda", 0x00c36400: "Ceph", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS",
}

// refuseNetwork refuses a file on a network file system.
func refuseNetwork(path string) error {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Statfs(filepath.Dir(path), &fs)
	}
	if err != nil {
		return nil // SQLite finds out
	}
	if name, ok := networks[int64(uint32(fs.Type))]; ok {
		return fmt.Errorf("it is on a network file system (%s), where SQLite's locks cannot be relied on: put it on a local disk, or use PostgreSQL", name)
	}
	return nil
}
