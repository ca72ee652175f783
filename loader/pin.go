// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// Schema is the version of what is pinned: the layout of the directories and of every map. A program finds only what
// it understands.
const Schema = "v5"

const defaultBPFFS = "/sys/fs/bpf"

// pins knows where things are pinned:
//
//	PIN/Schema/maps/      state that outlives a policy
//	PIN/Schema/policy/    maps and programs of the policy in force
//	PIN/Schema/next/      the same of the policy that is being applied, and in state/ the state that it goes on with
//	PIN/Schema/spare/     the same of the policy before: see spare.go
//	PIN/Schema/gates/     what switches from the one policy to the other: see gates
//	PIN/Schema/links/IFACE/{xdp,xdp_generic,tcx_in,tcx_out} links
//	PIN/Schema/links/IFACE/{clsact_in,clsact_out}           programs, where the kernel has no TCX
type pins struct {
	base    string
	version string          // another than Schema; empty for ours
	ctx     context.Context // of who waits for the lock; nil: nothing cancels that
}

func (p pins) root() string      { return filepath.Join(p.base, cmp.Or(p.version, Schema)) }
func (p pins) maps() string      { return filepath.Join(p.root(), "maps") }
func (p pins) policy() string    { return filepath.Join(p.root(), "policy") }
func (p pins) next() string      { return filepath.Join(p.root(), "next") }
func (p pins) nextState() string { return filepath.Join(p.next(), "state") }
func (p pins) spare() string     { return filepath.Join(p.root(), "spare") }
func (p pins) gates() string     { return filepath.Join(p.root(), "gates") }
func (p pins) links() string     { return filepath.Join(p.root(), "links") }

// escape makes a name that bpffs takes: it reserves dots.
func escape(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2E").Replace(name)
}

func unescape(name string) string {
	return strings.NewReplacer("%2E", ".", "%25", "%").Replace(name)
}

func (p pins) link(iface, kind string) string {
	return filepath.Join(p.links(), escape(iface), kind)
}

func program(dir, iface, direction string) string {
	return filepath.Join(dir, "prog_"+escape(iface)+"_"+direction)
}

// interfaces lists the interfaces that have pins.
func (p pins) interfaces() ([]string, error) {
	entries, err := os.ReadDir(p.links())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, unescape(e.Name()))
	}
	return names, nil
}

// prepare makes the directories, on a bpffs that is mounted if need be, and checks that they are ours alone: whoever
// may write there could open the host.
func (p pins) prepare() error {
	if err := mountBPFFS(p.base); err != nil {
		return err
	}
	for _, dir := range []string{p.base, p.root(), p.maps(), p.links()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin directory: %w", err)
		}
	}
	if err := p.checkOwner(); err != nil {
		return err
	}
	return closeToOthers(p.base)
}

func (p pins) checkOwner() error {
	for _, dir := range []string{p.base, p.root()} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%s is not a directory that only its owner, uid %d, may write: remove it, or choose another --pin-path", dir, os.Geteuid())
		}
	}
	return nil
}

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == unix.BPF_FS_MAGIC
}

// mountBPFFS sees to it that path will lie on a bpffs.
func mountBPFFS(path string) error {
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
	target := path
	if rel, err := filepath.Rel(defaultBPFFS, path); err == nil && !strings.HasPrefix(rel, "..") {
		target = defaultBPFFS
	}
	if hiddenMounts() {
		return fmt.Errorf("there is no bpf filesystem at %s in this mount namespace, and one mounted here would vanish "+
			"with this command, and the filter with it: instead of \"ip netns exec NAME\" use \"nsenter --net=/run/netns/NAME\"", target)
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", target, err)
	}
	if err := unix.Mount("bpf", target, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a bpf filesystem at %s: %w", target, err)
	}
	return nil
}

// hiddenMounts tells that this process has mounts that one of its ancestors has not, as under ip netns exec.
func hiddenMounts() bool {
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

// lock waits until no other command changes what is pinned here, and returns the function that lets the next one. The
// error is ErrNotRunning when there is nothing to lock.
func (p pins) lock() (unlock func(), err error) { return p.lockAs(lock.Exclusive) }

func (p pins) lockAs(mode lock.Mode) (unlock func(), err error) {
	unlock, err = lock.Dir(p.context(), p.base, mode)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.notRunning("nothing is pinned at " + p.base)
	}
	return unlock, err
}

func (p pins) context() context.Context {
	if p.ctx == nil {
		return context.Background()
	}
	return p.ctx
}

// claim makes the directories and takes the lock of them.
func (p pins) claim() (unlock func(), err error) {
	for {
		if err := p.prepare(); err != nil {
			return nil, err
		}
		unlock, err = p.lock()
		if errors.Is(err, ErrNotRunning) {
			continue // a down that held the lock took them away
		}
		if err != nil {
			return nil, err
		}
		if err := p.prepare(); err != nil {
			unlock()
			return nil, err
		}
		return unlock, nil
	}
}

// replacePin puts pin at path, in the place of what is there.
func replacePin(path string, pin func(string) error) error {
	next := path + "_next"
	_ = os.Remove(next)
	if err := pin(next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// remove takes out everything that is pinned here.
func (p pins) remove() error {
	if err := os.RemoveAll(p.root()); err != nil {
		return err
	}
	// The base may hold another version's pins, or be a mount of its own.
	_ = os.Remove(p.base)
	return nil
}

// PinDirs are the directories that change when a command begins or ends a filter, replaces its policy, or takes an
// interface on or off.
func PinDirs(pinPath string) []string {
	p := pins{base: pinPath}
	return []string{p.base, p.root(), p.links()}
}
