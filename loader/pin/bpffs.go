// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/lock"
)

const (
	defaultBPFFS = "/sys/fs/bpf"
	// mountSource is what a bpf filesystem calls its source that was mounted for the pins alone.
	mountSource = "portcullis"
)

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == unix.BPF_FS_MAGIC
}

// mountBPFFS sees to it that path will lie on a bpf filesystem.
func mountBPFFS(ctx context.Context, path string) error {
	existing := path
	for {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		existing = filepath.Dir(existing)
	}
	if isBPFFS(existing) {
		return nil
	}
	target, source := path, mountSource
	if rel, err := filepath.Rel(defaultBPFFS, path); err == nil && !strings.HasPrefix(rel, "..") {
		target, source = defaultBPFFS, "bpf" // where every host has one: it stays
	}
	if HiddenMounts() {
		return fmt.Errorf("there is no bpf filesystem at %s in this mount namespace, and one mounted here would vanish "+
			"with this command, and the filter with it: instead of \"ip netns exec NAME\" use \"nsenter --net=/run/netns/NAME\"", target)
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", target, err)
	}
	if target == path {
		// Of two commands that mount at once, the second would hide what the first one pins.
		if err := os.Chmod(target, 0o700); err != nil {
			return err
		}
		unlock, err := lock.Dir(ctx, target, lock.Exclusive)
		if err != nil {
			return err
		}
		defer unlock()
		if isBPFFS(target) {
			return nil
		}
	}
	if err := unix.Mount(source, target, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a bpf filesystem at %s: %w", target, err)
	}
	return nil
}

// unmount takes away a bpf filesystem that mountBPFFS has mounted for the pins, once nothing is pinned there.
func unmount(path string) error {
	entries, err := os.ReadDir(path)
	pinned := func(e os.DirEntry) bool { return !strings.Contains(e.Name(), ".") } // but for the kernel's own *.debug
	if err != nil || slices.ContainsFunc(entries, pinned) || !isMountedForPins(path) {
		return nil
	}
	// Whoever waits for the lock has it open; he will find that it leads nowhere.
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount the bpf filesystem at %s: %w", path, err)
	}
	_ = os.Remove(path) // it may hold what the mount has hidden
	return nil
}

func isMountedForPins(path string) bool {
	for _, m := range mounts() {
		if m.path == path && m.source == mountSource {
			return true
		}
	}
	return false
}

// mount is a bpf filesystem.
type mount struct{ path, source string }

// mounts returns the bpf filesystems of this mount namespace.
func mounts() (list []mount) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		// "36 35 0:30 / /mnt rw,nosuid shared:1 - bpf portcullis rw,mode=700"
		place, kind, _ := strings.Cut(line, " - ")
		at, what := strings.Fields(place), strings.Fields(kind)
		if len(at) > 4 && len(what) > 1 && what[0] == "bpf" {
			list = append(list, mount{unescapeMount(at[4]), what[1]})
		}
	}
	return list
}

// unescapeMount returns a path as mountinfo means it.
func unescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// HiddenMounts reports whether this process has mounts that one of its ancestors has not, as under ip netns exec: a bpf
// filesystem that it mounted would vanish with it.
func HiddenMounts() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	for pid := range host.Ancestors() {
		other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err == nil && other != own {
			return true
		}
	}
	return false
}
