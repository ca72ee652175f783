// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
)

// roles runs the script that the package brings.
func roles(t *testing.T, c *etcdcluster.Cluster, args ...string) {
	t.Helper()
	cmd := exec.Command("../../packaging/fleet/etcd-roles.sh", args...)
	cmd.Env = c.Environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// With the roles that the package brings, a host reads what its group runs and writes what it says of itself, and no
// more. Who is who, etcd knows by certificates alone.
func TestRoles(t *testing.T) {
	c := etcdcluster.Start(t, 1)
	roles := func(args ...string) {
		t.Helper()
		roles(t, c, args...)
	}
	roles("publisher", "ops")
	roles("host", "web", "h2")
	for range 2 { // all of it can be done again
		roles("host", "web", "h1")
		roles("enable")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	open := func(name string) store.Store { return etcdcluster.Open(t, c.URL(), c.User(t, name)) }
	ops, h1, h2 := open("ops"), open("h1"), open("h2")
	bundle := "bundles/" + strings.Repeat("0a", 32)
	for _, key := range []string{"groups/web/current", "groups/db/current", bundle, "lists/0b", "bans/web/h2", "bans/db/d1", "hosts/h2/status"} {
		if err := ops.Put(ctx, key, []byte("1"), store.Any); err != nil {
			t.Fatalf("the publisher puts %s: %v", key, err)
		}
	}
	if keys, err := ops.List(ctx, ""); err != nil || len(keys) != 7 {
		t.Errorf("the publisher lists %q, %v", keys, err)
	}

	const denied, allowed = false, true
	for _, a := range []struct {
		what string
		want bool
		try  func() error
	}{
		{"read groups/web/current", allowed, func() error { _, err := h1.Get(ctx, "groups/web/current"); return err }},
		{"watch groups/web/current", allowed, func() error { _, err := h1.Watch(ctx, "groups/web/current", "x"); return err }},
		{"read the bundle", allowed, func() error { _, err := h1.Get(ctx, bundle); return err }},
		{"read the list", allowed, func() error { _, err := h1.Get(ctx, "lists/0b"); return err }},
		{"read bans/web/", allowed, func() error { _, err := h1.Changes(ctx, "bans/web/", ""); return err }},
		{"write hosts/h1/status", allowed, func() error { return h1.Put(ctx, fleet.StatusKey("h1"), []byte("1"), store.Any) }},
		{"write hosts/h1/probes", allowed, func() error { return h1.Put(ctx, fleet.ProbesKey("h1"), []byte("1"), store.Absent) }},
		{"write bans/web/h1", allowed, func() error { return h1.Put(ctx, fleet.BansKey("web", "h1"), []byte("1"), store.Any) }},

		{"read groups/db/current", denied, func() error { _, err := h1.Get(ctx, "groups/db/current"); return err }},
		{"read bans/db/", denied, func() error { _, err := h1.Changes(ctx, "bans/db/", ""); return err }},
		{"read hosts/h2/status", denied, func() error { _, err := h1.Get(ctx, fleet.StatusKey("h2")); return err }},
		{"watch hosts/h2/status", denied, func() error { _, err := h1.Watch(ctx, fleet.StatusKey("h2"), "x"); return err }},
		{"list hosts/", denied, func() error { _, err := h1.List(ctx, "hosts/"); return err }},
		{"list everything", denied, func() error { _, err := h1.List(ctx, ""); return err }},
		{"write groups/web/current", denied, func() error { return h1.Put(ctx, "groups/web/current", []byte("2"), store.Any) }},
		{"remove groups/web/current", denied, func() error { return h1.Delete(ctx, "groups/web/current") }},
		{"write a bundle", denied, func() error { return h1.Put(ctx, bundle, []byte("2"), store.Any) }},
		{"write a list", denied, func() error { return h1.Put(ctx, "lists/0b", []byte("2"), store.Any) }},
		{"write hosts/h2/status", denied, func() error { return h1.Put(ctx, fleet.StatusKey("h2"), []byte("2"), store.Any) }},
		{"announce hosts/h2/present", denied, func() error { _, err := h1.Announce(ctx, fleet.PresenceKey("h2"), nil); return err }},
		{"write bans/web/h2", denied, func() error { return h1.Put(ctx, "bans/web/h2", []byte("2"), store.Any) }},
		{"write bans/web/0.operator", denied, func() error { return h1.Put(ctx, "bans/web/0.operator", []byte("2"), store.Any) }},
	} {
		switch err := a.try(); {
		case a.want == allowed && err != nil:
			t.Errorf("a host may not %s: %v", a.what, err)
		case a.want == denied && !errors.Is(err, store.ErrDenied):
			t.Errorf("a host may %s: %v", a.what, err)
		case a.want == denied && !strings.Contains(err.Error(), `"h1"`):
			t.Errorf("%s: the error does not say who was refused: %v", a.what, err)
		}
	}
	if object, err := ops.Get(ctx, fleet.StatusKey("h2")); err != nil || string(object.Value) != "1" {
		t.Errorf("the status of another host is %q, %v", object.Value, err)
	}

	// A host is present under a lease of its own, and is gone when it says so.
	presence, err := h2.Announce(ctx, fleet.PresenceKey("h2"), []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	if err := presence.Close(); err != nil {
		t.Errorf("it cannot leave: %v", err)
	}
	if _, err := ops.Get(ctx, fleet.PresenceKey("h2")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has left: %v", err)
	}

	// While users and roles change, which makes requests under way those of an older time, hosts go on.
	changing := make(chan struct{})
	go func() {
		defer close(changing)
		roles("host", "web", "h3")
	}()
	for done := false; !done; {
		select {
		case <-changing:
			done = true
		default:
		}
		if err := h1.Put(ctx, fleet.StatusKey("h1"), []byte("1"), store.Any); err != nil {
			t.Errorf("while roles change: %v", err)
			done = true
		}
	}
	<-changing

	roles("probing", "web")
	if _, err := h1.Changes(ctx, fleet.HostsPrefix, ""); err != nil {
		t.Errorf("a host that probes others cannot see who asks: %v", err)
	}
	roles("remove", "h1")
	if _, err := h1.Get(ctx, "groups/web/current"); !errors.Is(err, store.ErrDenied) {
		t.Errorf("a host that was removed: %v", err)
	}
	if _, err := open("stranger").Get(ctx, "groups/web/current"); !errors.Is(err, store.ErrDenied) {
		t.Errorf("a certificate that is no user: %v", err)
	}
	if _, err := h2.Get(ctx, "groups/web/current"); err != nil {
		t.Errorf("the other hosts: %v", err)
	}
}

// Whom the cluster's CA has not signed, etcd does not hear, and whom the fleet's CA has not signed, hosts do not believe.
func TestCertificates(t *testing.T) {
	c := etcdcluster.Start(t, 1)
	other := etcdcluster.NewCA(t, t.TempDir())
	path := t.TempDir() + "/h1"
	other.Issue(t, path, "h1")
	good := c.User(t, "h1")
	for name, o := range map[string]store.Options{
		"a client of another CA":     {CA: good.CA, Certificate: path + ".crt", Key: path + ".key"},
		"a server of another CA":     {CA: other.File, Certificate: good.Certificate, Key: good.Key},
		"a server of no system's CA": {Certificate: good.Certificate, Key: good.Key},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := etcdcluster.Open(t, c.URL(), o).Get(ctx, "groups/web/current")
		cancel()
		if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
