// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
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
		_, err := loader.Open(l.PinPath)
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
		_, err := loader.Up(loader.Options{PinPath: mount, Interfaces: []string{"eth0"}, Policy: policy.Default()})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), mount+" is open to others") {
		t.Errorf("at the root of a file system: %v", err)
	}
	mustHaveNothing(t, l, "eth0")
}
