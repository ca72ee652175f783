// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// Under ip netns exec there is no bpf filesystem, and one mounted there would go with the command.
func TestHiddenBPFFilesystemIsSaid(t *testing.T) {
	l := lab.New(t)
	cmd := exec.Command("ip", "netns", "exec", l.Server.Name, os.Args[0])
	cmd.Env = order{Interfaces: []string{"eth0"}}.environment(t, l)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nsenter --net=") {
		t.Errorf("got %v: %s", err, out)
	}
	mustHaveNothing(t, l, "eth0")
}

// Whoever may write where the filter is pinned could open the host.
func TestPinsThatOthersMayWriteAreRefused(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	for _, dir := range []string{l.PinPath, l.PinPath + "/" + loader.Schema} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", dir, info.Mode())
		}
	}
	if err := os.Chmod(l.PinPath, 0o777); err != nil {
		t.Fatal(err)
	}
	err := l.Server.Try(func() error {
		_, err := loader.Open(context.Background(), l.PinPath)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "only its owner") {
		t.Errorf("open: got %v", err)
	}
	if err := try(l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default()}); err == nil {
		t.Error("up takes a directory that everybody may write")
	}
}

// Whoever may open where the filter is pinned could hold the lock that an interface waits for which appears.
func TestPinsAreClosedToOthers(t *testing.T) {
	l := lab.New(t)
	if err := errors.Join(os.Mkdir(l.PinPath, 0o755), os.Chmod(l.PinPath, 0o755)); err != nil { // whatever the umask
		t.Fatal(err)
	}
	up(t, l, loader.ModeNative, policy.Default())
	if info, err := os.Stat(l.PinPath); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the pins: %v, %v", info.Mode(), err)
	}
	down(t, l)

	// The root of a file system may hold more.
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mount, unix.MNT_DETACH)
	err := l.Server.Try(func() error {
		_, err := loader.Up(context.Background(), loader.Options{PinPath: mount, Interfaces: []string{"eth0"}, Policy: policy.Default()})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), mount+" is open to others") {
		t.Errorf("at the root of a file system: %v", err)
	}
	mustHaveNothing(t, l, "eth0")
}

// A relative path would be another one for the next command, and the whole bpf filesystem is not ours.
func TestPinPathsThatAreRefused(t *testing.T) {
	lab.RequireRoot(t)
	for path, want := range map[string]string{"pins": "relative", "./pins": "relative", "/sys/fs/bpf/": "whole bpf filesystem"} {
		_, upErr := loader.Up(context.Background(), loader.Options{PinPath: path, Interfaces: []string{"lo"}, Policy: policy.Default()})
		_, openErr := loader.Open(context.Background(), path)
		_, downErr := loader.Down(context.Background(), path, nil)
		_, attachErr := loader.Attach(context.Background(), path, loader.ModeAuto)
		for what, err := range map[string]error{"up": upErr, "open": openErr, "down": downErr, "attach": attachErr} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s at %q: got %v", what, path, err)
			}
		}
	}
}

// Where no bpf filesystem is, one is mounted for the pins, and goes with them.
func TestAMountGoesWithThePins(t *testing.T) {
	l := lab.New(t)
	path := filepath.Join(t.TempDir(), "a b", "pins")
	script := `set -e
"$0" --pin-path "$1" up eth0 --config "$2" >/dev/null
grep -c " - bpf portcullis" /proc/self/mountinfo
"$0" --pin-path "$1" status >/dev/null
"$0" --pin-path "$1" down >/dev/null
grep -c " - bpf portcullis" /proc/self/mountinfo || true
test ! -e "$1" || echo left`
	file := filepath.Join(t.TempDir(), "portcullis.yaml")
	if err := os.WriteFile(file, []byte("open: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// In a process namespace of its own, as whoever ran this test may have other mounts.
	cmd := l.Server.Command("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, lab.Program(t), path, file)
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "1\n0\n" {
		t.Errorf("got %v, and mounts while it runs and afterwards: %s", err, out)
	}
	mustHaveNothing(t, l, "eth0")
}

// The verifier's words say everything but which capability is missing.
func TestAMissingCapabilityIsNamed(t *testing.T) {
	l := lab.New(t)
	for drop, want := range map[string]string{"perfmon": "CAP_PERFMON is", "bpf": "CAP_BPF is", "net_admin": "CAP_NET_ADMIN is", "perfmon,-net_admin": "CAP_NET_ADMIN, CAP_PERFMON are"} {
		cmd := l.Server.Command("setpriv", "--bounding-set=-sys_admin,-"+drop, os.Args[0])
		cmd.Env = order{Interfaces: []string{"eth0"}}.environment(t, l)
		out, err := cmd.CombinedOutput()
		if text := strings.TrimSpace(string(out)); err == nil || !strings.Contains(text, want) || strings.Contains(text, "\n") {
			t.Errorf("without %s: got %v: %s", drop, err, text)
		}
	}
	mustBeClean(t, l)
}

// Whoever only reads waits for nobody who reads, and whoever changes something waits for both.
func TestReadersDoNotExcludeReaders(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	unlock, err := lock.Dir(context.Background(), l.PinPath, lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	ctx := lock.WithWait(context.Background(), lock.Wait{Timeout: 200 * time.Millisecond})
	read := func() error {
		return l.Server.Try(func() error {
			f, err := loader.Open(ctx, l.PinPath)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Status()
			return err
		})
	}
	change := func() error {
		return l.Server.Try(func() error {
			f, err := loader.OpenToChange(ctx, l.PinPath)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.OpenRules(rules(t, "80/tcp"), false)
			return err
		})
	}
	if err := read(); err != nil {
		t.Errorf("a reader waits for a reader: %v", err)
	}
	if err := change(); !errors.Is(err, lock.ErrLocked) {
		t.Errorf("a change does not wait for a reader: %v", err)
	}
	unlock()
	if unlock, err = lock.Dir(context.Background(), l.PinPath, lock.Exclusive); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, lock.ErrLocked) {
		t.Errorf("a reader does not wait for a change: %v", err)
	}
	unlock()
	if err := change(); err != nil {
		t.Error(err)
	}
}

// A directory that others may open is one whose lock they could hold.
func TestNobodyElseCanLockThePins(t *testing.T) {
	l := lab.New(t)
	if err := os.Mkdir(l.PinPath, 0o755); err != nil {
		t.Fatal(err)
	}
	up(t, l, loader.ModeNative, policy.Default())
	if out, err := exec.Command("setpriv", "--reuid=65534", "--clear-groups", "flock", "--nonblock", l.PinPath, "true").CombinedOutput(); err == nil {
		t.Errorf("nobody locks %s: %s", l.PinPath, out)
	}
}

// Of two filters in one network namespace one goes: the host is not unprotected, and the other one is named.
func TestDownNamesTheOtherInstance(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	up(t, l, loader.ModeNative, policy.Default())
	other := l.PinPath + "-other"
	elsewhere := l.PinPath + "-elsewhere"
	for path, h := range map[string]*lab.Host{other: l.Server, elsewhere: l.Client} {
		dev := "eth1"
		if h == l.Client {
			dev = "eth0"
		}
		h.Do(t, func() error {
			_, err := loader.Up(context.Background(), loader.Options{PinPath: path, Interfaces: []string{dev}, Policy: policy.Default()})
			return err
		})
		t.Cleanup(func() {
			_ = h.Try(func() error {
				_, err := loader.Down(context.Background(), path, nil)
				return err
			})
		})
	}
	cmd := l.Server.Command(lab.Program(t), "--pin-path", l.PinPath, "down")
	out, err := cmd.CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "eth1 (--pin-path "+other+")") ||
		strings.Contains(text, "unprotected") || strings.Contains(text, elsewhere) {
		t.Errorf("got %v: %s", err, text)
	}
	out, err = l.Server.Command(lab.Program(t), "--pin-path", other, "down").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "this host is unprotected now") {
		t.Errorf("of the last one: got %v: %s", err, out)
	}
}
