// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// recorder notes which files are opened.
type recorder struct {
	fs.FS
	names []string
}

func (r *recorder) Open(name string) (fs.File, error) {
	f, err := r.FS.Open(name)
	if err == nil && !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
	return f, err
}

// What the doctor reads on this host is what other programs and system calls say.
func TestFiguresOfThisHost(t *testing.T) {
	seen := &recorder{FS: host.Files}
	e := &examination{Options: Options{PinPath: "/sys/fs/bpf/portcullis", Policy: policy.Default()}, files: files{seen}}
	e.host(attempt{})
	e.forwarding(nil)
	e.conntrack()
	compared := 0
	for _, name := range seen.names {
		if !strings.HasPrefix(name, "proc/sys/") {
			continue
		}
		want, err := exec.Command("cat", "/"+name).Output()
		if err != nil {
			continue // write-only, or gone
		}
		first, _, _ := strings.Cut(string(want), "\n")
		got, ok := e.files.line(name)
		if strings.HasSuffix(name, "nf_conntrack_count") { // it moves
			ok, got = ok && (len(got) > 1 || len(first) == 1), first
		}
		if !ok || got != first {
			t.Errorf("%s is %q, want %q", name, got, first)
		}
		compared++
	}
	if compared < 2 {
		t.Errorf("only %d sysctls are read: %q", compared, seen.names)
	}

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	e.checks = nil
	e.memlock("5.10.0")
	want := fmt.Sprintf(" %d bytes", limit.Cur)
	if limit.Cur == unix.RLIM_INFINITY {
		want = "not limited"
	}
	if !strings.Contains(e.checks[0].Text, want) {
		t.Errorf("locked memory: %q, want %q", e.checks[0].Text, want)
	}

	if uid, _, _ := strings.Cut(e.status("Uid"), "\t"); uid != fmt.Sprint(os.Getuid()) {
		t.Errorf("the user is %q, want %d", uid, os.Getuid())
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	have := uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	if got := e.status("CapEff"); got != fmt.Sprintf("%016x", have) {
		t.Errorf("the capabilities are %q, want %016x", got, have)
	}

	for path, magic := range map[string]int64{"/proc": unix.PROC_SUPER_MAGIC, "/sys": unix.SYSFS_MAGIC, "/sys/fs/bpf": unix.BPF_FS_MAGIC} {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			continue
		}
		kind := map[int64]string{unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.BPF_FS_MAGIC: "bpf"}[magic]
		if got := e.mounted(path); (got == kind) != (int64(st.Type) == magic) {
			t.Errorf("%s is of type %q, and statfs says %x", path, got, st.Type)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	if got, err := inode(e.files, "proc/thread-self/ns/net"); err != nil || got != st.Ino {
		t.Errorf("the namespace is %d, %v; want %d", got, err, st.Ino)
	}
}

// A limit of six digits is never advised to become one of a single digit.
func TestConntrackAdviceOfThisHost(t *testing.T) {
	want, err := exec.Command("cat", "/proc/sys/net/netfilter/nf_conntrack_max").Output()
	if err != nil {
		t.Skip("conntrack is not loaded")
	}
	limit := strings.TrimSpace(string(want))
	e := &examination{files: files{overlay{host.Files, "proc/sys/net/netfilter/nf_conntrack_count", limit + "\n"}}}
	e.conntrack()
	var n int
	if _, err := fmt.Sscan(limit, &n); err != nil {
		t.Fatal(err)
	}
	if fix := fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*n); len(e.checks) != 1 || !slices.Equal(e.checks[0].Fix, []string{fix}) {
		t.Errorf("got %+v, want %s", e.checks, fix)
	}
}

// overlay has one file instead of the one below.
type overlay struct {
	fs.FS
	name, text string
}

func (o overlay) Open(name string) (fs.File, error) {
	if name != o.name {
		return o.FS.Open(name)
	}
	dir, err := os.MkdirTemp("", "portcullis-overlay-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(dir+"/file", []byte(o.text), 0o600); err != nil {
		return nil, err
	}
	return os.Open(dir + "/file")
}
