// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/storetest"
)

func TestDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		root := t.TempDir()
		return storetest.Subject{Publisher: store.NewDir(root), Host: store.NewDir(root), HostName: "h1"}
	})
}

// A folder that is not mounted is no folder without a policy.
func TestDirThatIsNotThere(t *testing.T) {
	ctx := t.Context()
	root := filepath.Join(t.TempDir(), "mnt")
	d := store.NewDir(root)
	if _, err := d.Get(ctx, "groups/web/current"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	if _, err := d.List(ctx, "hosts/"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list: %v", err)
	}
	if err := d.Put(ctx, "hosts/h1/status", nil, store.Any); err == nil {
		t.Error("put into a folder that is not there")
	}
	if _, err := d.Announce(ctx, "hosts/h1/present", nil); err == nil {
		t.Error("announced in a folder that is not there")
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("the folder was made")
	}
	if _, err := d.Watch(ctx, "groups/web/current", "x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("watch: %v", err)
	}
}

// What others leave in the folder are no objects: what an editor or rsync has begun to write, a link out of it, a pipe.
func TestDirHoldsAnything(t *testing.T) {
	root := t.TempDir()
	d := store.NewDir(root)
	if err := os.MkdirAll(filepath.Join(root, "hosts", "h1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts/h1/.status.Xy3", "hosts/h1/Status", "hosts/h1/status~", "README", ".git/config", "hosts/h2@x/status"} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := d.List(t.Context(), ""); err != nil || len(keys) != 0 {
		t.Errorf("listed %q, %v", keys, err)
	}
	if err := os.Mkdir(filepath.Join(root, "hosts", "h1", "status"), 0o755); err != nil {
		t.Fatal(err)
	}
	if o, err := d.Get(t.Context(), "hosts/h1/status"); err == nil {
		t.Errorf("a folder is %q", o.Value)
	}
}

// Whoever tidies the folder up takes nobody's presence away for long.
func TestDirAnnouncesAgain(t *testing.T) {
	root := t.TempDir()
	d := store.NewDir(root)
	p, err := d.AnnounceFor(t.Context(), "hosts/h1/present", []byte("1"), 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.RemoveAll(filepath.Join(root, "hosts")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		o, err := d.Get(t.Context(), "hosts/h1/present")
		if err == nil && string(o.Value) == "1" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is %q, %v", o.Value, err)
		}
	}
}

// Who announced something and was killed is gone after a while, by the clock of the folder and not by that of who looks.
func TestDirForgetsWhoIsGone(t *testing.T) {
	root := t.TempDir()
	d := store.NewDir(root)
	ctx := t.Context()
	p, err := d.AnnounceFor(ctx, "hosts/h1/present", []byte("1"), 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	got, err := d.Get(ctx, "hosts/h1/present")
	if err != nil {
		t.Fatalf("it is there still: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(root, "hosts/h1/present@*"))
	if len(files) != 1 {
		t.Fatalf("there are %q", files)
	}
	left := files[0] + "-copy" // what a killed process leaves
	if err := errors.Join(os.Rename(files[0], left), p.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Rename(left, files[0]); err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := d.Watch(limited, "hosts/h1/present", got.Version); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is gone: %v", err)
	}
	if keys, err := d.List(ctx, "hosts/"); err != nil || len(keys) != 0 {
		t.Errorf("listed %q, %v", keys, err)
	}
}
