// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// attempt is what came of loading the programs.
type attempt struct {
	loader.Support
	err    error
	hidden bool // mounts are private: see loader.HiddenMounts
}

// probe loads the programs, if this process may.
func (e *examination) probe() (a attempt) {
	a.hidden = loader.HiddenMounts()
	if len(e.capabilities()) > 0 {
		a.err = fs.ErrPermission
		return a
	}
	p := e.Policy
	if p == nil {
		p = policy.Default()
	}
	a.Support, a.err = loader.Probe(p, e.Running != nil)
	return a
}

// host examines what no interface has a part in.
func (e *examination) host(a attempt) {
	release, _ := e.files.line("proc/sys/kernel/osrelease")
	e.privileges()
	if e.btf() {
		e.kernel(release, a)
	}
	e.jit(a)
	e.memlock(release)
	e.lockdown()
	e.bpffs(a.hidden)
}

// What loading and attaching takes. CAP_SYS_ADMIN stands for the first two, which Linux has had since 5.8.
var neededCapabilities = []struct {
	name string
	bits []int
}{
	{"CAP_BPF", []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}},
	{"CAP_PERFMON", []int{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}},
	{"CAP_NET_ADMIN", []int{unix.CAP_NET_ADMIN}},
}

// status returns a field of /proc/thread-self/status.
func (e *examination) status(field string) string {
	text, _ := fs.ReadFile(e.files, "proc/thread-self/status")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// capabilities lists those that are needed and not there.
func (e *examination) capabilities() (missing []string) {
	have, err := strconv.ParseUint(e.status("CapEff"), 16, 64)
	if err != nil {
		return nil
	}
	for _, c := range neededCapabilities {
		found := false
		for _, bit := range c.bits {
			found = found || have&(1<<bit) != 0
		}
		if !found {
			missing = append(missing, c.name)
		}
	}
	return missing
}

func (e *examination) privileges() {
	missing := strings.Join(e.capabilities(), ", ")
	uid, _, _ := strings.Cut(e.status("Uid"), "\t")
	switch {
	case missing == "":
		e.ok("privileges", "this process may load programs and attach them")
	case uid == "0":
		e.fail("privileges", "this root lacks %s, as in a container: run portcullis on the host, or give the container these", missing)
	default:
		e.note("privileges", "without root much cannot be seen, and \"up\" is refused").fix("sudo " + e.portcullis("doctor"))
	}
}

func (e *examination) btf() bool {
	if e.files.exists("sys/kernel/btf/vmlinux") {
		e.ok("btf", "the kernel has BTF")
		return true
	}
	e.fail("btf", "there is no /sys/kernel/btf/vmlinux: boot a kernel that was built with CONFIG_DEBUG_INFO_BTF=y, as those of distributions are")
	return false
}

func (e *examination) kernel(release string, a attempt) {
	switch {
	case e.unseen("kernel", "whether Linux "+release+" loads the programs", a.err):
	case a.err != nil:
		text, _, _ := strings.Cut(a.err.Error(), "\n")
		e.fail("kernel", "Linux %s does not load the programs, so boot a newer one; 6.1 and up are known to do: %s", release, text)
	case a.Frags != nil:
		e.note("kernel", "Linux %s loads the programs, but XDP without multi-buffer support, so a large MTU takes TC", release)
	default:
		e.ok("kernel", "Linux %s loads every program", release)
	}
}

func (e *examination) jit(a attempt) {
	// Only the first network namespace shows the setting. Elsewhere a program tells.
	enable, shown := e.files.line("proc/sys/net/core/bpf_jit_enable")
	harden, _ := e.files.line("proc/sys/net/core/bpf_jit_harden")
	switch {
	case enable == "0":
		e.warn("jit", "BPF programs are interpreted, at several times the cost of each packet").fix("sysctl -w net.core.bpf_jit_enable=1")
	case enable == "2":
		e.warn("jit", "the JIT writes each program into the kernel log").fix("sysctl -w net.core.bpf_jit_enable=1")
	case harden == "2":
		e.note("jit", "programs of root are hardened as well, so that each packet costs more").fix("sysctl -w net.core.bpf_jit_harden=1")
	case shown, a.Compiled:
		e.ok("jit", "programs are compiled")
	case a.err != nil:
		e.note("jit", "this network namespace does not show whether programs are compiled")
	default:
		e.warn("jit", "BPF programs are interpreted, at several times the cost of each packet: this kernel has no JIT, or it is off").
			fix("nsenter --net=/proc/1/ns/net sysctl -w net.core.bpf_jit_enable=1")
	}
}

// accountedSince is the first kernel that counts BPF memory by control group and not against RLIMIT_MEMLOCK.
var accountedSince = [2]int{5, 11}

func (e *examination) memlock(release string) {
	var version [2]int
	_, _ = fmt.Sscanf(release, "%d.%d", &version[0], &version[1])
	if version[0] > accountedSince[0] || version[0] == accountedSince[0] && version[1] >= accountedSince[1] {
		e.ok("memlock", "no limit on locked memory counts for maps")
		return
	}
	text, _ := fs.ReadFile(e.files, "proc/thread-self/limits")
	for line := range strings.Lines(string(text)) {
		limit, ok := strings.CutPrefix(line, "Max locked memory")
		if fields := strings.Fields(limit); ok && len(fields) > 0 && fields[0] != "unlimited" {
			e.fail("memlock", "before Linux %d.%d maps count as locked memory, of which %s bytes are allowed", accountedSince[0], accountedSince[1], fields[0]).
				fix("ulimit -l unlimited")
			return
		}
	}
	e.ok("memlock", "locked memory is not limited")
}

func (e *examination) lockdown() {
	modes, ok := e.files.line("sys/kernel/security/lockdown")
	switch {
	case strings.Contains(modes, "[confidentiality]"):
		e.fail("lockdown", "the kernel is locked down for confidentiality and refuses programs that read its memory, "+
			"as ours do the MAC address of a device: boot with lockdown=integrity")
	case !ok || strings.Contains(modes, "[none]"):
		e.ok("lockdown", "the kernel is not locked down")
	default:
		e.ok("lockdown", "the kernel is locked down for integrity, which lets programs be loaded")
	}
}

const defaultBPFFS = "/sys/fs/bpf"

func (e *examination) bpffs(hidden bool) {
	target := e.PinPath
	if e.PinPath == defaultBPFFS || strings.HasPrefix(e.PinPath, defaultBPFFS+"/") {
		target = defaultBPFFS
	}
	switch {
	case e.mounted(e.PinPath) == "bpf":
		e.ok("bpffs", "a bpf filesystem keeps the filter at %s", e.PinPath)
	case hidden:
		e.fail("bpffs", "this mount namespace has no bpf filesystem at %s, as under \"ip netns exec\": enter the network namespace alone", target).
			fix(fmt.Sprintf("nsenter --net=%s %s", quote.Shell("/run/netns/"+e.namespace()), e.up(e.Interfaces...)))
	default:
		e.note("bpffs", "no bpf filesystem is mounted at %s: \"up\" mounts one", target).
			fix("mkdir -p "+quote.Shell(target), "mount -t bpf bpf "+quote.Shell(target))
	}
}

// mounted returns the type of the file system that a path lies on.
func (e *examination) mounted(name string) (kind string) {
	text, _ := fs.ReadFile(e.files, "proc/thread-self/mountinfo")
	longest := 0
	for line := range strings.Lines(string(text)) {
		mount, source, ok := strings.Cut(line, " - ")
		fields, of := strings.Fields(mount), strings.Fields(source)
		if !ok || len(fields) < 5 || len(of) == 0 {
			continue
		}
		// A later mount at the same place hides the earlier one.
		if point := path.Clean(fields[4]); len(point) >= longest && (point == name || point == "/" || strings.HasPrefix(name, point+"/")) {
			longest, kind = len(point), of[0]
		}
	}
	return kind
}

// namespace is the name of this network namespace, as ip netns knows it.
func (e *examination) namespace() string {
	own, err := inode(e.files, "proc/thread-self/ns/net")
	names, _ := fs.Glob(e.files, "run/netns/*")
	for _, name := range names {
		if other, err2 := inode(e.files, name); err == nil && err2 == nil && other == own {
			return path.Base(name)
		}
	}
	return "NAME"
}

func inode(files fs.FS, name string) (uint64, error) {
	info, err := fs.Stat(files, name)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return st.Ino, nil
}
