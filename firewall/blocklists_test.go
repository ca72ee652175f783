// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/fetch"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	blocking = "interfaces: [eth0]\nlists: {bad: {file: bad.txt}, feed: {url: \"https://example.net/x\", every: 1h}}\n" +
		"block: [\"@bad\", \"@feed\", 198.51.100.9]\ntrust: [192.0.2.7]\nopen: [22/tcp]\n"
	feedURL = "https://example.net/x"
)

// newBlockStand returns a stand whose policy blocks a list file and one that is fetched, and keeps its state.
func newBlockStand(t *testing.T) (s *stand, list string) {
	t.Helper()
	s = newStand(t, blocking)
	list = filepath.Join(s.dir, "bad.txt")
	s.writes(list, "192.0.2.0/24\n203.0.113.9\n")
	o := s.options()
	o.StateDir = filepath.Join(s.dir, "state")
	s.fw = firewall.New(o)
	return s, list
}

// fetched puts a copy of the feed where it is kept.
func (s *stand) fetched(text string) (path string) {
	s.Helper()
	store := fetch.Store{Dir: filepath.Join(s.dir, "state", "lists")}
	if err := os.MkdirAll(store.Dir, 0o700); err != nil {
		s.Fatal(err)
	}
	path = store.Path(feedURL)
	s.writes(path, fmt.Sprintf("# portcullis keeps this copy of a list: {\"url\":%q,\"networks\":1}\n%s", feedURL, text))
	return path
}

// blocks checks what is blocked, and by which lists.
func (s *stand) blocks(want ...string) {
	s.Helper()
	var got []string
	lists, _, known := maps.BlockListsOf(s.Running)
	for _, l := range lists {
		for _, p := range l.Prefixes {
			got = append(got, l.Name+" "+p.String())
		}
	}
	if !slices.Equal(got, want) || !known {
		s.Errorf("it blocks\n%q, want\n%q", got, want)
	}
}

const own = "block: 198.51.100.9/32"

func TestBlocksListsOfEveryKind(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	// A list that has not been fetched yet is no reason to be without a filter. It is told.
	up, err := s.fw.Up(ctx, firewall.UpRequest{})
	if err != nil || len(up.Skipped) > 0 || !strings.Contains(strings.Join(up.Warnings, "\n"), "list feed holds nothing: it has not been fetched from "+feedURL+" yet") {
		t.Errorf("%+v, %v", up, err)
	}
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", own)
	status, err := s.fw.Status(ctx)
	if err != nil || !strings.Contains(strings.Join(status.Warnings, "\n"), "list feed holds nothing") {
		t.Errorf("%+v, %v", status, err)
	}
	s.fetched("10.9.0.0/16\n")
	if status, err = s.fw.Status(ctx); err != nil || !slices.Contains(status.Warnings, feedURL+` differs from what is in force: "portcullis apply" applies it`) {
		t.Errorf("%q, %v", status.Warnings, err)
	}
	// A few lines that are no networks are left out, and told.
	s.writes(list, "192.0.2.0/24\n"+strings.Repeat("203.0.113.9\n", 20)+"x\n")
	diff, err := s.fw.Diff(ctx, "")
	if err != nil || fmt.Sprint(diff.Changes) != "[~ block @bad: 2 networks -> 2 networks]" && len(diff.Changes) != 1 || len(diff.Skipped) != 1 {
		t.Errorf("%+v, %v", diff, err)
	}
	apply, err := s.fw.Apply(ctx, firewall.ApplyRequest{})
	if err != nil || len(apply.Skipped) != 1 || !strings.HasPrefix(apply.Skipped[0], list+":22:1: bad address") || fmt.Sprint(apply.Changes) != "[~ block @feed: 0 networks -> 1 network]" {
		t.Errorf("%+v, %v", apply, err)
	}
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own)
	check, err := s.fw.Check(s.file)
	if err != nil || len(check.Skipped) != 1 {
		t.Errorf("%+v, %v", check, err)
	}
	// Too many of them are none.
	s.writes(list, "192.0.2.0/24\nx\n")
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); err == nil || !strings.Contains(err.Error(), list+":2:1: bad address") {
		t.Errorf("half a list: %v", err)
	}
	status, err = s.fw.Status(ctx)
	if err != nil || len(status.Lists) != 3 || status.Lists[1].Name != "feed" || status.Lists[1].URL != feedURL || status.Lists[1].Fetched == "" || status.Lists[2].Name != "block:" {
		t.Errorf("%+v, %v", status.Lists, err)
	}
}

// What is open is edited, and saved, whatever has become of lists.
func TestEditsWhatBlocksLists(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	s.fetched("10.9.0.0/16\n")
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	s.writes(list, "192.0.2.0/25\n")
	s.open(false, "80/tcp")
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own)
	saved, err := s.fw.Save(ctx)
	text, _ := os.ReadFile(s.file)
	if err != nil || len(saved.Changes) > 0 || string(text) != strings.Replace(blocking, "22/tcp", "22/tcp, 80/tcp", 1) {
		t.Errorf("%+v, %v\n%s", saved, err, text)
	}
	// A file that is gone is written with its lists.
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fw.Save(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); err != nil {
		t.Error(err)
	}
	s.blocks("bad 192.0.2.0/25", "feed 10.9.0.0/16", own)
}

// At a boot what was in force last is there again, whatever has become of the files.
func TestListsAtABoot(t *testing.T) {
	s, list := newBlockStand(t)
	path := s.fetched("10.9.0.0/16\n")
	s.follower()
	all := []string{"bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own}
	s.blocks(all...)
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	s.boots()
	s.blocks(all...)
	s.writes(s.file, "x")
	s.boots() // with the last good policy
	s.blocks(all...)
	// Without a copy the rest is in force.
	if err := os.RemoveAll(filepath.Join(s.dir, "state", "last-good-lists")); err != nil {
		t.Fatal(err)
	}
	s.boots()
	s.blocks("feed 10.9.0.0/16", own)
	s.writes(path, "spoilt\n")
	s.boots()
	s.blocks(own)
	s.opens("22/tcp")
}

// The follower puts a list in force that has been fetched, and knows which are to be fetched also where the file is bad.
func TestFollowsLists(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	fl := s.follower()
	if l := fl.Fetched(); len(l) != 1 || l[0].Name != "feed" || l[0].Every != time.Hour || l[0].Missing == "" {
		t.Errorf("to be fetched are %+v", l)
	}
	path := s.fetched("10.9.0.0/16\n")
	if !slices.Contains(fl.Files(), path) || !fl.Changed() {
		t.Errorf("followed are %q", fl.Files())
	}
	s.says(fl.ApplyChanged(ctx), "~ block @feed: 0 networks -> 1 network")
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own)
	s.says(fl.ApplyChanged(ctx), "")
	s.writes(list, "192.0.2.0/24\nx\n")
	s.says(fl.ApplyChanged(ctx), "bad address")
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own)
	// A rule needs the list before it can be in force, and it is fetched for that.
	s.writes(s.file, "interfaces: [eth0]\nlists: {cdn: {url: \"https://example.net/cdn\"}}\nopen: [22/tcp, 443/tcp from @cdn]\n")
	s.says(fl.ApplyChanged(ctx), `list "cdn" is not known yet`)
	if l := fl.Fetched(); len(l) != 1 || l[0].Name != "cdn" {
		t.Errorf("to be fetched are %+v", l)
	}
}

var gateway = netip.MustParseAddr("192.0.2.1")

// Nobody is to block what this host lives on, unless he insists.
func TestListGuard(t *testing.T) {
	ctx := context.Background()
	session := host.Connection{Local: netip.MustParseAddrPort("192.0.2.2:22"), Remote: netip.MustParseAddrPort("203.0.113.9:50000")}
	for name, c := range map[string]struct {
		list  string
		set   func(s *stand)
		wants string
	}{
		"gateway":       {"192.0.2.0/24\n", func(s *stand) { s.GatewayList = []netip.Addr{gateway} }, "list bad blocks 192.0.2.0/24, which holds 192.0.2.1, the default gateway: add 192.0.2.1 to trust, or use --force"},
		"resolver":      {"9.9.9.9\n", func(s *stand) { s.ResolverList = []netip.Addr{netip.MustParseAddr("9.9.9.9")} }, "list bad blocks 9.9.9.9, a resolver of this host: add 9.9.9.9 to trust"},
		"own address":   {"2001:db8::/32\n", func(s *stand) { s.Addrs = []netip.Addr{netip.MustParseAddr("2001:db8::5")} }, "list bad blocks 2001:db8::/32, which holds 2001:db8::5, an address of this host"},
		"session":       {"203.0.113.0/24\n", func(s *stand) { s.SSHList = []host.Connection{session} }, "which holds 203.0.113.9, the source of an ssh session in use, to port 22"},
		"large":         {"224.0.0.0/3\n", func(*stand) {}, "list bad blocks 224.0.0.0/3, which is a large part of the internet: take it out, or use --force"},
		"large, IPv6":   {"2000::/3\n", func(*stand) {}, "list bad blocks 2000::/3"},
		"everything":    {"0.0.0.0/0\n::/0\n", func(*stand) {}, "list bad blocks 0.0.0.0/0, which is a large part of the internet (and 1 more)"},
		"in the policy": {"#\n", func(s *stand) { s.GatewayList = []netip.Addr{netip.MustParseAddr("198.51.100.9")} }, "block has 198.51.100.9, the default gateway"},
		"trusted":       {"192.0.2.0/24\n", func(s *stand) { s.GatewayList = []netip.Addr{netip.MustParseAddr("192.0.2.7")} }, ""},
		"large enough":  {"10.0.0.0/8\n2001::/16\n", func(*stand) {}, ""},
	} {
		s, list := newBlockStand(t)
		s.writes(list, c.list)
		c.set(s)
		_, err := s.fw.Up(ctx, firewall.UpRequest{})
		if got := fmt.Sprint(err); c.wants == "" && err != nil || !strings.Contains(got, c.wants) {
			t.Errorf("%s: up: %v", name, err)
		}
		if _, err := s.fw.Up(ctx, firewall.UpRequest{Force: true}); err != nil {
			t.Errorf("%s: forced: %v", name, err)
		}
		_, err = s.fw.Apply(ctx, firewall.ApplyRequest{})
		if got := fmt.Sprint(err); c.wants == "" && err != nil || !strings.Contains(got, c.wants) {
			t.Errorf("%s: apply: %v", name, err)
		}
		check, err := s.fw.Check(s.file)
		if err != nil || strings.Contains(strings.Join(check.Refused, "\n"), "or use --force") != (c.wants != "") {
			t.Errorf("%s: check says %q, %v", name, check.Refused, err)
		}
	}
}

// The agent, which can ask nobody, spares it, also when it becomes known later.
func TestTheFollowerSparesWhatTheHostLivesOn(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	s.writes(list, "192.0.2.0/30\n224.0.0.0/3\n")
	fl := s.fw.Follow(firewall.FollowRequest{})
	notes, err := fl.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.says(notes, "list bad blocks 224.0.0.0/3, which is a large part of the internet: 224.0.0.0/3 is left out")
	s.blocks("bad 192.0.2.0/30", own)
	s.says(fl.Spare(ctx, s.Kernel), "")
	s.GatewayList = []netip.Addr{gateway}
	s.says(fl.Spare(ctx, s.Kernel), "list bad blocks 192.0.2.0/30, which holds 192.0.2.1, the default gateway: 192.0.2.1 is left out")
	spared := []string{"bad 192.0.2.0/32", "bad 192.0.2.2/31", own}
	s.blocks(spared...)
	s.says(fl.Spare(ctx, s.Kernel), "")
	status, err := s.fw.Status(ctx)
	if err != nil || strings.Contains(strings.Join(status.Warnings, "\n"), "differs") {
		t.Errorf("it is another policy: %q, %v", status.Warnings, err)
	}
	// Also an entry of the policy itself.
	s.GatewayList = append(s.GatewayList, netip.MustParseAddr("198.51.100.9"))
	s.says(fl.Spare(ctx, s.Kernel), "block has 198.51.100.9, the default gateway: 198.51.100.9 is left out")
	s.blocks(spared[:2]...)
	// Who insists is heard, by an agent that starts later, too.
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	all := []string{"bad 192.0.2.0/30", "bad 224.0.0.0/3", own}
	s.blocks(all...)
	fl = s.follower()
	s.says(fl.Spare(ctx, s.Kernel), "")
	s.says(fl.ApplyChanged(ctx), "")
	s.blocks(all...)
}

// Where it cannot be found out what the host lives on, lists that have changed wait, also while it goes on to fail.
func TestListsWaitForTheirGuard(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	s.writes(list, "203.0.113.0/24\n")
	s.GatewayList = []netip.Addr{gateway}
	fl := s.follower()
	before := []string{"bad 203.0.113.0/24", own}
	s.blocks(before...)
	s.GatewayErr = errors.New("netlink is out of memory")
	s.writes(list, "192.0.2.0/30\n224.0.0.0/3\n198.18.0.0/31\n")
	s.says(fl.ApplyChanged(ctx), "find the default gateway: netlink is out of memory; the policy in force stays")
	s.says(fl.ApplyChanged(ctx), "")
	s.says(fl.Reload(ctx), "the policy in force stays")
	s.blocks(before...)
	s.GatewayErr = nil
	s.says(fl.ApplyChanged(ctx), "192.0.2.1 is left out")
	s.blocks("bad 192.0.2.0/32", "bad 192.0.2.2/31", "bad 198.18.0.0/31", own)
	// At a boot there is nothing in force that could stay: what is known is spared, and the rest is told.
	s.GatewayList, s.GatewayErr = nil, errors.New("netlink is out of memory")
	s.Addrs = []netip.Addr{netip.MustParseAddr("198.18.0.1")}
	s.Running = nil
	notes, err := s.fw.Follow(firewall.FollowRequest{}).Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.says(notes, "find the default gateway: netlink is out of memory")
	s.blocks("bad 192.0.2.0/30", "bad 198.18.0.0/32", own)
}

// A list that has been in force is not emptied because its copy has become unreadable; what else the file says counts.
func TestAnUnreadableCopyEmptiesNoList(t *testing.T) {
	ctx := context.Background()
	for name, spoil := range map[string]func(s *stand, path string) error{
		"damaged": func(_ *stand, path string) error { return os.WriteFile(path, []byte("spoilt\n"), 0o600) },
		"no list": func(s *stand, _ string) error { s.fetched("x\ny\n"); return nil },
		"gone":    func(_ *stand, path string) error { return os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newBlockStand(t)
			path := s.fetched("10.9.0.0/16\n")
			fl := s.follower()
			all := []string{"bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own}
			s.blocks(all...)
			if err := spoil(s, path); err != nil {
				t.Fatal(err)
			}
			s.says(fl.ApplyChanged(ctx), "list feed from "+feedURL+" would hold nothing any more, and stays as it is until it has been fetched: ")
			s.says(fl.ApplyChanged(ctx), "")
			s.blocks(all...)
			if fl.Problem() == "" {
				t.Error("nothing is wrong")
			}
			if l := fl.Fetched(); len(l) != 1 || l[0].Missing == "" && name != "no list" {
				t.Errorf("to be fetched are %+v", l)
			}
			// Somebody edits the file meanwhile.
			text, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			s.writes(s.file, strings.Replace(strings.Replace(string(text), "22/tcp", "22/tcp, 8080/tcp", 1), "block: [", "block: [198.51.100.7, ", 1))
			s.says(fl.ApplyChanged(ctx), "8080/tcp")
			if !slices.Contains(policy.Texts(s.Running.Open), "8080/tcp") {
				t.Errorf("open is %v", policy.Texts(s.Running.Open))
			}
			edited := []string{"block: 198.51.100.7/32", own, "bad 192.0.2.0/24", "bad 203.0.113.9/32"}
			s.blocks(append(slices.Clone(edited), "feed 10.9.0.0/16")...)
			s.says(fl.ApplyChanged(ctx), "")
			// It is fetched, and in force.
			s.fetched("10.10.0.0/16\n")
			s.says(fl.ApplyChanged(ctx), "is good again")
			s.blocks(append(slices.Clone(edited), "feed 10.10.0.0/16")...)
			// Who asks for it gets it.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); err != nil {
				t.Fatal(err)
			}
			s.says(fl.ApplyChanged(ctx), "")
			s.blocks(edited...)
		})
	}
}

// A trial that ends brings back what was blocked, though the files hold something else by then.
func TestATrialEndsWithTheListsOfBefore(t *testing.T) {
	ctx := context.Background()
	s, list := newBlockStand(t)
	s.fetched("10.9.0.0/16\n")
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	candidate := filepath.Join(s.dir, "candidate.yaml")
	s.writes(candidate, "interfaces: [eth0]\nblock: [10.0.0.0/8]\nopen: [22/tcp]\n")
	if _, err := s.fw.Try(ctx, firewall.TryRequest{File: candidate, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.blocks("block: 10.0.0.0/8")
	s.writes(list, "203.0.113.77\n")
	s.fetched("10.10.0.0/16\n")
	if _, err := s.fw.Revert(ctx); err != nil {
		t.Fatal(err)
	}
	s.blocks("bad 192.0.2.0/24", "bad 203.0.113.9/32", "feed 10.9.0.0/16", own)
	if _, trust, known := maps.BlockListsOf(s.Running); !known || fmt.Sprint(trust) != "[192.0.2.7/32]" {
		t.Errorf("it trusts %v", trust)
	}
}
