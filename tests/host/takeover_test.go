// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// become makes what is pinned look as if another version had done it, whose maps this one does not understand.
func become(t *testing.T, l *lab.Lab, version string) {
	t.Helper()
	if err := os.Rename(filepath.Join(l.PinPath, loader.Schema), filepath.Join(l.PinPath, version)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"maps/flows", "maps/state", "policy/running", "policy/clock"} {
		if err := os.Remove(filepath.Join(l.PinPath, version, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// linkIDs returns the ids of the links that are pinned.
func linkIDs(t *testing.T, l *lab.Lab) map[string]link.ID {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(l.PinPath, "v*", "links", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]link.ID)
	for _, path := range paths {
		pinned, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			continue // of clsact it is a program
		}
		info, err := pinned.Info()
		pinned.Close()
		if err != nil {
			t.Fatal(err)
		}
		ids[filepath.Base(path)] = info.ID
	}
	return ids
}

// A new version takes a filter over whose pins it cannot read: in place, while connections go on and nothing gets in.
func TestUpTakesOverAnOlderVersion(t *testing.T) {
	modes := map[string]loader.Options{
		"native":  {Mode: loader.ModeNative},
		"generic": {Mode: loader.ModeGeneric},
		"tc":      {Mode: loader.ModeTC},
		"clsact":  {Mode: loader.ModeTC, NoTCX: true},
	}
	for name, o := range modes {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			l.Client.Echo(t, 7)
			l.Server.Echo(t, 7)
			o.Interfaces, o.Policy = []string{"eth0"}, policy.Default()
			upWith(t, l, o)
			ours := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
			mustTalk(t, ours, "before")
			before := linkIDs(t, l)
			become(t, l, "v1")
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			mustTalk(t, ours, "as before")

			if err := open(l); !errors.Is(err, loader.ErrOlderSchema) {
				t.Fatalf("open: %v, want what an older version has pinned", err)
			}
			if err := try(l, loader.Options{Running: true}); !errors.Is(err, loader.ErrOlderSchema) {
				t.Errorf("a change of what runs: %v, want a word of the older version", err)
			}
			mustNotDial(t, l.Client, lab.ServerV4, 7)

			o.Mode = loader.ModeAuto
			upWith(t, l, o)
			mustTalk(t, ours, "after")
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			if s := status(t, l); len(s.Interfaces) != 1 || !s.Interfaces[0].Present {
				t.Errorf("status says %+v", s.Interfaces)
			}
			for kind, id := range linkIDs(t, l) {
				if id != before[kind] {
					t.Errorf("%s is another link than before: for a moment there was none", kind)
				}
			}
			if _, err := os.Stat(filepath.Join(l.PinPath, "v1")); err == nil {
				t.Error("what the older version pinned is still there")
			}
			if counter(t, l, "closed port") == 0 {
				t.Error("nothing was dropped: the test shows nothing")
			}
			down(t, l)
			mustHaveNothing(t, l, "eth0")
		})
	}
}

// A command that was cut off in the move of the links is finished by the next one.
func TestTakeoverThatWasCutOff(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	old := filepath.Join(l.PinPath, "v1", "links", "eth0")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(l.PinPath, loader.Schema, "links", "eth0", "xdp"), filepath.Join(old, "xdp")); err != nil {
		t.Fatal(err)
	}
	if s := status(t, l); len(s.Interfaces) != 1 || !s.Interfaces[0].Present || s.Interfaces[0].Mode != loader.ModeNative {
		t.Errorf("status says %+v", s.Interfaces)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
}

// What a newer version runs is left alone, but taken off when that is asked for.
func TestANewerVersionIsLeftAlone(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	become(t, l, "v999")
	before := linkIDs(t, l)
	if err := open(l); !errors.Is(err, loader.ErrNewerSchema) {
		t.Errorf("open: %v", err)
	}
	if err := try(l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default()}); !errors.Is(err, loader.ErrNewerSchema) {
		t.Errorf("up: %v", err)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	for kind, id := range linkIDs(t, l) {
		if id != before[kind] {
			t.Errorf("%s was touched", kind)
		}
	}
	down(t, l)
	mustHaveNothing(t, l, "eth0")
	mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
}

// A program of another build takes the filter over with its flows and counters.
func TestAnotherBuildGoesOn(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	ours := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	dropped, before := counter(t, l, "closed port"), linkIDs(t, l)
	if err := becomeAnotherBuild(l); err != nil {
		t.Fatal(err)
	}
	up(t, l, loader.ModeAuto, policy.Default())
	mustTalk(t, ours, "after")
	if now := counter(t, l, "closed port"); now < dropped || dropped == 0 {
		t.Errorf("%d drops were counted before and %d after", dropped, now)
	}
	for kind, id := range linkIDs(t, l) {
		if id != before[kind] {
			t.Errorf("%s is another link than before", kind)
		}
	}
}

// becomeAnotherBuild makes what runs look as if another build had loaded it. The object's digest is the name of a
// directory, without which nothing of the old build's programs is used again.
func becomeAnotherBuild(l *lab.Lab) error {
	objects, err := filepath.Glob(filepath.Join(l.PinPath, loader.Schema, "*", "object_*"))
	if err != nil || len(objects) == 0 {
		return fmt.Errorf("found %v, %v", objects, err)
	}
	for _, path := range objects {
		if err := os.Rename(path, filepath.Join(filepath.Dir(path), "object_0123456789abcdef")); err != nil {
			return err
		}
	}
	return nil
}

func open(l *lab.Lab) error {
	return l.Server.Try(func() error {
		f, err := loader.Open(context.Background(), l.PinPath)
		if err == nil {
			f.Close()
		}
		return err
	})
}
