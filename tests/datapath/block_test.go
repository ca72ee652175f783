// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

var (
	blocked = want{reason: bpf.FirewallReasonDROP_BLOCKED}
	banned  = want{reason: bpf.FirewallReasonDROP_BANNED}
)

// bans puts bans that last for ever, or as long as is said.
func bans(lasts time.Duration, prefixes ...netip.Prefix) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		clock := r.Clock(t)
		list := make([]dpmaps.Ban, len(prefixes))
		for i, p := range prefixes {
			list[i] = dpmaps.Ban{Prefix: p, Since: clock.Time, Reason: "test"}
			if lasts > 0 {
				list[i].Until = clock.Time.Add(lasts)
			}
		}
		if n, err := r.Set.PutBans(clock, list); err != nil || n != len(list) {
			t.Fatalf("%d of %d bans were put: %v", n, len(list), err)
		}
	}
}

func unbans(prefixes ...netip.Prefix) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		if missing, err := r.Set.RemoveBans(r.Clock(t), prefixes); err != nil || len(missing) > 0 {
			t.Fatalf("to end bans: %v, not banned were %v", err, missing)
		}
	}
}

// blocks puts a block list and trusted sources.
func blocks(trust []netip.Prefix, prefixes ...netip.Prefix) step {
	return func(t testing.TB, r *trial) {
		t.Helper()
		putLists(t, r.Datapath, trust, dpmaps.BlockList{Name: "bad", Prefixes: prefixes})
	}
}

func putLists(t testing.TB, d *testdp.Datapath, trust []netip.Prefix, lists ...dpmaps.BlockList) {
	t.Helper()
	b, err := dpmaps.NewBlocking(lists, trust)
	if err == nil {
		err = d.Set.PutBlocking(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// nobody ends all bans and takes all lists away.
func nobody(t testing.TB, r *trial) {
	t.Helper()
	clear(t, r.Datapath)
}

func clear(t testing.TB, d *testdp.Datapath) {
	t.Helper()
	putLists(t, d, nil)
	clock := dpmaps.Clock{Jiffies: d.Now(t), HZ: testdp.HZ}
	var all []netip.Prefix
	for ban, err := range d.Set.Bans(clock) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ban.Prefix)
	}
	if _, err := d.Set.RemoveBans(clock, all); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Set.ForgetEndedBans(dpmaps.Clock{Jiffies: 1<<64 - 2}); err != nil {
		t.Fatal(err)
	}
	if err := d.Set.TidyGate(); err != nil {
		t.Fatal(err)
	}
}

// single is an address alone, and around a network of a quarter of its bits' length that holds it.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func around(a netip.Addr, bits int) netip.Prefix {
	p, err := a.Prefix(bits)
	if err != nil {
		panic(err)
	}
	return p
}

// wide is the shortest network that is banned without a second thought.
func (w world) wide(a netip.Addr) netip.Prefix {
	if w.family == 4 {
		return around(a, 8)
	}
	return around(a, 16)
}

func TestBansDropTheirSource(t *testing.T) {
	for _, w := range worlds {
		d := load(t, testdp.Options{Policy: server, Bans: 1024})
		peer, open := single(w.peer), w.in(syn(80))
		next := w.from(w.peer.Next(), syn(80))
		later := w.fragmentOf(w.peer, w.us, frame.ProtoUDP, 3, false, make([]byte, 8))
		arrive(t, d, []arrival{
			{name: "nobody is banned", before: []step{nobody}, frame: open, want: rule("80/tcp")},
			{name: "an address", before: []step{nobody, bans(0, peer)}, frame: open, want: banned},
			{name: "and not its neighbour", before: []step{nobody, bans(0, peer)}, frame: next, want: rule("80/tcp")},
			{name: "an address that is banned no more", before: []step{nobody, bans(0, peer), unbans(peer)}, frame: open, want: rule("80/tcp")},
			{name: "nor when the gate is tidy", before: []step{nobody, bans(0, peer), unbans(peer), tidy}, frame: open, want: rule("80/tcp")},
			{name: "the other one when the gate is tidy", before: []step{nobody, bans(0, peer, single(w.friend)), unbans(single(w.friend)), tidy}, frame: open, want: banned},
			{name: "a closed port", before: []step{nobody, bans(0, peer)}, frame: w.in(syn(81)), want: banned},
			{name: "a ping", before: []step{nobody, bans(0, peer)}, frame: w.in(w.echo(1, 1)), want: banned},
			{name: "a later fragment", before: []step{nobody, bans(0, peer)}, frame: later, want: banned},
			{name: "the answer to our query", before: []step{nobody, sent(w.out(query(1))), bans(0, peer)}, frame: w.in(answer(1)), want: banned},
			{name: "a live connection", before: after(after([]step{nobody}, w.connected()...), bans(0, peer)), frame: w.tcpIn(theirData), want: banned},
			{name: "a network", before: []step{nobody, bans(0, around(w.peer, w.peer.BitLen()-4))}, frame: open, want: banned},
			{name: "a network beside", before: []step{nobody, bans(0, around(w.stranger, w.peer.BitLen()-8))}, frame: open, want: rule("80/tcp")},
			{name: "a large network", before: []step{nobody, bans(0, w.wide(w.peer))}, frame: open, want: banned},
			{name: "everything", before: []step{nobody, bans(0, around(w.peer, 0))}, frame: open, want: banned},
			{name: "a ban that ends later", before: []step{nobody, bans(time.Hour, peer), waited(time.Hour - 2*time.Second)}, frame: open, want: banned},
			{name: "a ban that has ended", before: []step{nobody, bans(time.Hour, peer), waited(time.Hour + time.Second)}, frame: open, want: rule("80/tcp")},
			{name: "an ended one of a network hides no shorter one",
				before: []step{nobody, bans(0, around(w.peer, 20)), bans(time.Hour, around(w.peer, 24), around(w.peer, 22)), waited(time.Hour + time.Second)}, frame: open, want: banned},
			{name: "an ended one of an address hides no network",
				before: []step{nobody, bans(0, around(w.peer, 20)), bans(time.Hour, peer), waited(time.Hour + time.Second)}, frame: open, want: banned},
			{name: "ended networks alone", before: []step{nobody, bans(time.Hour, around(w.peer, 20), around(w.peer, 24)), waited(time.Hour + time.Second)}, frame: open, want: rule("80/tcp")},
			{name: "an ended ban that is forgotten", before: []step{nobody, bans(time.Hour, peer), waited(time.Hour + time.Second), forgotten}, frame: open, want: rule("80/tcp")},
			{name: "a ban that is put off", before: []step{nobody, bans(time.Hour, peer), bans(3*time.Hour, peer), waited(2 * time.Hour)}, frame: open, want: banned},
			{name: "a ban that is shortened", before: []step{nobody, bans(3*time.Hour, peer), bans(time.Hour, peer), waited(2 * time.Hour)}, frame: open, want: rule("80/tcp")},
			{name: "a trusted address", before: []step{nobody, blocks([]netip.Prefix{peer}), bans(0, peer)}, frame: open, want: rule("80/tcp")},
			{name: "a trusted network", before: []step{nobody, blocks([]netip.Prefix{around(w.peer, 24)}), bans(0, peer, around(w.peer, 8))}, frame: open, want: rule("80/tcp")},
			{name: "beside a trusted network", before: []step{nobody, blocks([]netip.Prefix{around(w.friend, w.friend.BitLen()-4)}), bans(0, peer)}, frame: open, want: banned},
			{name: "a trusted one is let in nowhere else", before: []step{nobody, blocks([]netip.Prefix{peer})}, frame: w.in(syn(81)), want: closedPort},
		})
		clear(t, d)
	}
}

func tidy(t testing.TB, r *trial) {
	t.Helper()
	if err := r.Set.TidyGate(); err != nil {
		t.Fatal(err)
	}
}

func forgotten(t testing.TB, r *trial) {
	t.Helper()
	if n, err := r.Set.ForgetEndedBans(r.Clock(t)); err != nil || n != 1 {
		t.Fatalf("%d bans were forgotten: %v", n, err)
	}
}

func TestBlockListsDropTheirSources(t *testing.T) {
	for _, w := range worlds {
		d := load(t, testdp.Options{Policy: server, Bans: 1024})
		peer, open := single(w.peer), w.in(syn(80))
		later := w.fragmentOf(w.peer, w.us, frame.ProtoUDP, 3, false, make([]byte, 8))
		arrive(t, d, []arrival{
			{name: "an address", before: []step{nobody, blocks(nil, peer)}, frame: open, want: blocked},
			{name: "and not its neighbour", before: []step{nobody, blocks(nil, peer)}, frame: w.from(w.peer.Next(), syn(80)), want: rule("80/tcp")},
			{name: "a network", before: []step{nobody, blocks(nil, around(w.peer, 24))}, frame: open, want: blocked},
			{name: "a large network", before: []step{nobody, blocks(nil, w.wide(w.peer))}, frame: open, want: blocked},
			{name: "everything", before: []step{nobody, blocks(nil, around(w.peer, 0))}, frame: open, want: blocked},
			{name: "a list that is gone", before: []step{nobody, blocks(nil, peer), blocks(nil)}, frame: open, want: rule("80/tcp")},
			{name: "a later fragment", before: []step{nobody, blocks(nil, peer)}, frame: later, want: blocked},
			{name: "a live connection", before: after(after([]step{nobody}, w.connected()...), blocks(nil, peer)), frame: w.tcpIn(theirData), want: blocked},
			{name: "a trusted address", before: []step{nobody, blocks([]netip.Prefix{peer}, around(w.peer, 24))}, frame: open, want: rule("80/tcp")},
			{name: "a ban counts before a list", before: []step{nobody, blocks(nil, peer), bans(0, peer)}, frame: open, want: banned},
			{name: "a list holds when a ban has ended", before: []step{nobody, blocks(nil, peer), bans(time.Hour, peer), waited(time.Hour + time.Second)}, frame: open, want: blocked},
			{name: "what we send to it", before: []step{nobody, blocks(nil, peer), sent(w.out(syn(80)))}, frame: w.from(w.stranger, syn(80)), want: rule("80/tcp")},
		})
		clear(t, d)
	}
}

// A rejecting host does not answer those whom it blocks.
func TestBlockedSourcesAreNotAnswered(t *testing.T) {
	for _, w := range worlds {
		d := loadRejecting(t, testdp.Options{})
		r := &trial{Datapath: d}
		closed := w.inward(syn(23))
		for _, path := range testdp.Ingress {
			for _, put := range []step{bans(0, single(w.peer)), blocks(nil, single(w.peer))} {
				nobody(t, r)
				refill(t, d)
				if d.Answer(t, path, closed, testdp.From{}) == nil {
					t.Errorf("%s, %s: nobody is blocked, and a closed port does not answer", w, path)
				}
				put(t, r)
				if answer := d.Answer(t, path, closed, testdp.From{}); answer != nil {
					t.Errorf("%s, %s: a blocked source is answered %x", w, path, answer)
				}
			}
		}
		clear(t, d)
	}
}

// What a trusted source begins is not limited, and what another one does is.
func TestTrustedSourcesHaveNoLimit(t *testing.T) {
	for _, w := range worlds {
		d := load(t, testdp.Options{Policy: "open: [22/tcp limit 1/day burst 1]"})
		limited := rule("22/tcp limit 1/day burst 1")
		trust := blocks([]netip.Prefix{single(w.peer)})
		arrive(t, d, []arrival{
			{name: "a trusted source", before: after([]step{nobody, trust}, repeated(9, w.in(syn(22)))...), frame: w.in(syn(22)), want: limited},
			{name: "another one", before: after([]step{nobody, trust}, repeated(1, w.from(w.friend, syn(22)))...), frame: w.from(w.friend, syn(22)), want: overLimit},
			{name: "one that is trusted no more", before: after([]step{nobody, trust, nobody}, repeated(1, w.in(syn(22)))...), frame: w.in(syn(22)), want: overLimit},
		})
		clear(t, d)
	}
}

func TestBlockedSourcesAreNotRoutedFor(t *testing.T) {
	host := newRouter(t)
	for _, w := range routings() {
		d := host.load(t, forwardPolicy+"accept")
		from := host.outside
		cases := []arrival{
			{name: "nobody is blocked", before: []step{nobody}, frame: w.through(syn(80)), want: forwarded, from: from},
			{name: "a banned client", before: []step{nobody, bans(0, single(w.peer))}, frame: w.through(syn(80)), want: banned, from: from},
			{name: "a blocked client", before: []step{nobody, blocks(nil, single(w.peer))}, frame: w.through(syn(80)), want: blocked, from: from},
			{name: "a trusted client", before: []step{nobody, blocks([]netip.Prefix{single(w.peer)}, single(w.peer))}, frame: w.through(syn(80)), want: forwarded, from: from},
			{name: "a blocked destination", before: []step{nobody, blocks(nil, single(w.inside))}, frame: w.through(syn(80)), want: forwarded, from: from},
		}
		arriveAt(t, host.host, d, cases)
		clear(t, d)
	}
}
