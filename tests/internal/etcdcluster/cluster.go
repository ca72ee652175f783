// SPDX-License-Identifier: Apache-2.0

// Package etcdcluster starts real members of etcd for tests, each in a network namespace of its own, with TLS.
package etcdcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/etcd"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

const (
	inside  = "PORTCULLIS_ETCD_NAMESPACE"
	bridge  = "br0"
	address = "10.79.0.%d" // of the members, from 1 on
	// settle is how long a cluster may take to answer: a busy machine chooses leaders slowly.
	settle = time.Minute
)

// Main runs the tests of a package in a network namespace of their own, in which members can be joined. It does not return.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inside) != "" {
		// What is mounted for members goes with the namespace.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inside+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := self.Run()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		os.Exit(max(failed.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// needNamespace fails the test of a package that does not call Main.
func needNamespace(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Fatal("the package has no TestMain that calls etcdcluster.Main")
	}
}

// Cluster is some members of etcd.
type Cluster struct {
	Members []*Member
	CA      *CA

	dir     string // on a tmpfs
	token   string // changes with each restoration
	options []string
	root    store.Options
}

// Member is one of them.
type Member struct {
	Name, Address string

	cluster   *Cluster
	namespace string
	data      string
	cmd       *exec.Cmd
	exited    chan struct{}
	log       string
}

// Start starts members, which all trust one CA. Further flags of etcd may be given.
func Start(t testing.TB, members int, options ...string) *Cluster {
	t.Helper()
	lab.RequireRoot(t)
	lab.NeedProgram(t, "etcd")
	lab.NeedProgram(t, "etcdctl")
	needNamespace(t)
	dir := memory(t)
	c := &Cluster{dir: dir, token: "first", options: options, CA: NewCA(t, dir)}
	c.root = c.User(t, "root")
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", bridge).Run() })
	ip(t, "addr", "add", fmt.Sprintf(address, 254)+"/24", "dev", bridge)
	ip(t, "link", "set", bridge, "up")
	for i := range members {
		m := &Member{Name: fmt.Sprintf("m%d", i+1), Address: fmt.Sprintf(address, i+1), cluster: c}
		m.namespace = fmt.Sprintf("etcd%d-%s", os.Getpid(), m.Name)
		m.log = filepath.Join(dir, m.Name+".log")
		ip(t, "netns", "add", m.namespace)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", m.namespace).Run() })
		ip(t, "-n", m.namespace, "link", "set", "lo", "up")
		join(t, m.Name, m.namespace, "eth0", i+1)
		c.CA.Issue(t, filepath.Join(dir, m.Name), "", m.Address, "127.0.0.1")
		m.data = filepath.Join(dir, m.Name+".data")
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		m.Start(t, "--initial-cluster-state", "new")
		t.Cleanup(func() { m.Kill() })
	}
	c.Wait(t)
	return c
}

// starters is served by a thread that lives as long as this process. What it starts dies with it: that of a goroutine
// that has entered another namespace ends sooner.
var starters = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range c {
			do()
		}
	}()
	return c
})

// start starts a program that does not outlive the tests.
func start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	done := make(chan error)
	starters() <- func() { done <- cmd.Start() }
	return <-done
}

// memory returns a directory on a tmpfs of its own until the test ends: a member takes 64 MB before it has anything.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portcullis-etcd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8g,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Join joins a network namespace with the members, by an interface of that name.
func (c *Cluster) Join(t testing.TB, namespace, device string, number int) {
	t.Helper()
	join(t, fmt.Sprintf("host%d", number), namespace, device, number)
}

func join(t testing.TB, port, namespace, device string, number int) {
	t.Helper()
	ip(t, "link", "add", port, "type", "veth", "peer", "name", device, "netns", namespace)
	// A namespace outlives its name for a while, and its devices with it.
	t.Cleanup(func() { exec.Command("ip", "link", "del", port).Run() })
	ip(t, "link", "set", port, "master", bridge, "up")
	ip(t, "-n", namespace, "addr", "add", fmt.Sprintf(address, number)+"/24", "dev", device)
	ip(t, "-n", namespace, "link", "set", device, "up")
}

// Start starts the member, after it was killed, too.
func (m *Member) Start(t testing.TB, options ...string) {
	t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	client := "https://" + m.Address + ":2379"
	certificate := filepath.Join(m.cluster.dir, m.Name)
	args := append([]string{
		"netns", "exec", m.namespace, "etcd",
		"--name", m.Name, "--data-dir", m.data, "--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr",
		"--listen-client-urls", client + ",https://127.0.0.1:2379", "--advertise-client-urls", client,
		"--listen-peer-urls", m.peer(), "--initial-advertise-peer-urls", m.peer(),
		"--initial-cluster", m.cluster.initial(), "--initial-cluster-token", m.cluster.token,
		"--cert-file", certificate + ".crt", "--key-file", certificate + ".key",
		"--client-cert-auth", "--trusted-ca-file", m.cluster.CA.File,
		"--enable-grpc-gateway=false",
	}, m.cluster.options...)
	m.cmd = exec.Command("ip", append(args, options...)...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := start(m.cmd); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	m.exited = exited
	go func(cmd *exec.Cmd) {
		cmd.Wait()
		close(exited)
	}(m.cmd)
}

// PID returns the process of the member.
func (m *Member) PID() int { return m.cmd.Process.Pid }

// Kill kills the member as the loss of power would.
func (m *Member) Kill() {
	m.cmd.Process.Kill()
	<-m.exited
}

// Cut lets nothing through to the member and from it, without a word to either side.
func (m *Member) Cut(t testing.TB) {
	t.Helper()
	ip(t, "link", "set", m.Name, "nomaster")
}

// Mend ends that.
func (m *Member) Mend(t testing.TB) {
	t.Helper()
	ip(t, "link", "set", m.Name, "master", bridge)
}

func (m *Member) peer() string { return "http://" + m.Address + ":2380" }

// Plain starts a member of its own on loopback, outside of the cluster, that speaks no TLS, and returns its address.
func Plain(t testing.TB) string {
	t.Helper()
	lab.RequireRoot(t)
	lab.NeedProgram(t, "etcd")
	needNamespace(t)
	ip(t, "link", "set", "lo", "up")
	dir := memory(t)
	const client, peer = "127.0.0.1:2379", "http://127.0.0.1:2380" // of a namespace that is the tests' own
	cmd := exec.Command("etcd", "--data-dir", dir, "--logger", "zap", "--log-level", "error", "--log-outputs", "stderr",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return client
}

func (c *Cluster) initial() string {
	var members []string
	for _, m := range c.Members {
		members = append(members, m.Name+"="+m.peer())
	}
	return strings.Join(members, ",")
}

// URL returns the URL of all members.
func (c *Cluster) URL() string {
	var endpoints []string
	for _, m := range c.Members {
		endpoints = append(endpoints, m.Address+":2379")
	}
	return "etcd://" + strings.Join(endpoints, ",")
}

// User returns how somebody with that common name asks the cluster.
func (c *Cluster) User(t testing.TB, name string) store.Options {
	t.Helper()
	path := filepath.Join(c.dir, "user-"+name)
	if _, err := os.Stat(path + ".crt"); err != nil {
		c.CA.Issue(t, path, name)
	}
	return store.Options{CA: c.CA.File, Certificate: path + ".crt", Key: path + ".key"}
}

// Open returns the store as root has it, until the test ends.
func (c *Cluster) Open(t testing.TB) store.Store {
	t.Helper()
	return Open(t, c.URL(), c.root)
}

// Open returns the store at a URL until the test ends.
func Open(t testing.TB, url string, o store.Options) store.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Wait waits until the cluster answers.
func (c *Cluster) Wait(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	for {
		out, err := c.etcdctl(ctx, "endpoint", "health", "--cluster")
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the cluster does not answer: %v\n%s\n%s", err, out, c.Logs())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Logs returns the last of what the members have said.
func (c *Cluster) Logs() string {
	var all strings.Builder
	for _, m := range c.Members {
		text, _ := os.ReadFile(m.log)
		fmt.Fprintf(&all, "%s:\n%s\n", m.Name, text[max(0, len(text)-4000):])
	}
	return all.String()
}

// Leader returns the member that leads.
func (c *Cluster) Leader(t testing.TB) *Member {
	t.Helper()
	for deadline := time.Now().Add(settle); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		// Members that are gone make it fail, and the others are told all the same.
		out, _ := c.etcdctl(t.Context(), "endpoint", "status", "-w", "json")
		var members []struct {
			Endpoint string
			Status   struct {
				Header struct {
					Member uint64 `json:"member_id"`
				}
				Leader uint64
			}
		}
		if _, found, ok := strings.Cut(out, "[{"); ok {
			out = "[{" + found
		}
		if json.NewDecoder(strings.NewReader(out)).Decode(&members) != nil {
			continue
		}
		for _, m := range members {
			if m.Status.Leader == 0 || m.Status.Leader != m.Status.Header.Member {
				continue
			}
			for _, member := range c.Members {
				if strings.Contains(m.Endpoint, member.Address+":") {
					return member
				}
			}
		}
	}
	t.Fatalf("nobody leads\n%s", c.Logs())
	return nil
}

// Etcdctl runs etcdctl as root and returns what it has printed. One that fails ends the test.
func (c *Cluster) Etcdctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.etcdctl(t.Context(), args...)
	if err != nil {
		t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryEtcdctl is Etcdctl that returns the error.
func (c *Cluster) TryEtcdctl(args ...string) (string, error) {
	return c.etcdctl(context.Background(), args...)
}

func (c *Cluster) etcdctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "etcdctl", args...)
	cmd.Env = c.Environment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Environment returns the environment in which etcdctl reaches the cluster as root.
func (c *Cluster) Environment() []string {
	endpoints := strings.ReplaceAll(strings.TrimPrefix(c.URL(), "etcd://"), ",", ",https://")
	return append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=https://"+endpoints, "ETCDCTL_CACERT="+c.root.CA,
		"ETCDCTL_CERT="+c.root.Certificate, "ETCDCTL_KEY="+c.root.Key, "ETCDCTL_DIAL_TIMEOUT=3s", "ETCDCTL_COMMAND_TIMEOUT=5s")
}

// Snapshot returns a file with all that the cluster holds.
func (c *Cluster) Snapshot(t testing.TB) string {
	t.Helper()
	file := filepath.Join(c.dir, "snapshot")
	os.Remove(file)
	cmd := exec.CommandContext(t.Context(), "etcdctl", "snapshot", "save", file)
	cmd.Env = append(c.Environment(), "ETCDCTL_ENDPOINTS=https://"+c.Members[0].Address+":2379")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return file
}

// Restore kills all members, and starts them with what a snapshot holds.
func (c *Cluster) Restore(t testing.TB, snapshot string) {
	t.Helper()
	for _, m := range c.Members {
		m.Kill()
	}
	c.token += "+"
	for _, m := range c.Members {
		if err := os.RemoveAll(m.data); err != nil {
			t.Fatal(err)
		}
		restore := exec.Command("etcdctl", "snapshot", "restore", snapshot, "--name", m.Name, "--data-dir", m.data,
			"--initial-cluster", c.initial(), "--initial-cluster-token", c.token, "--initial-advertise-peer-urls", m.peer())
		restore.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", restore, err, out)
		}
	}
	for _, m := range c.Members {
		m.Start(t)
	}
	c.Wait(t)
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
